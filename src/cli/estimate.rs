//! `fitwatch estimate FILE`: the bill of any GGUF file, on this machine or another.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::args::EstimateArguments;
use super::bill::{self, PoolForm};
use super::exit::Exit;
use super::facts::Facts;
use super::failure::Failure;
use super::file::{ModelFiles, projector_beside, read_projector};
use super::given::{Target, asks_for_missing_gpus, settings, target};
use super::print::{columns, print, print_json, talk};
use super::text::{safe, safe_path};
use super::{ask, cases, projector, words};
use crate::fit::{Advice, Fit, Plan, advice, judge, largest_context};
use crate::lmstudio::{AppSettings, SettingsFor, settings_for};
use crate::memory::{self, Backend, Bill, EngineProfile, Kind};
use crate::report::SCHEMA;
use crate::units::Bytes;

/// Everything an estimate says; also its JSON form.
#[derive(Debug, Serialize)]
struct Estimate {
    schema: u32,
    /// The first file.
    file: PathBuf,
    /// How many files there are.
    files: usize,
    bytes: Bytes,
    architecture: String,
    kind: Kind,
    quantisation: Option<String>,
    parameters: u64,
    context_train: u32,
    projector: Option<PathBuf>,
    settings: SettingsFor,
    devices: DevicesForm,
    bill: Bill,
    /// The bill pool by pool, under the devices' names.
    pools: Vec<PoolForm>,
    total: Bytes,
    /// The verdict on the devices given, or on this machine.
    fit: Option<Fit>,
    advice: Vec<Advice>,
    notes: Vec<String>,
}

/// The devices of an estimate.
#[derive(Debug, Serialize)]
pub(super) struct DevicesForm {
    pub(super) backend: Backend,
    pub(super) gpus: Vec<String>,
}

impl DevicesForm {
    /// Returns the devices of a target.
    pub(super) fn of(target: &Target) -> DevicesForm {
        let gpus = target.devices.gpus.iter().map(|gpu| gpu.name.clone()).collect();
        DevicesForm { backend: target.devices.backend, gpus }
    }

    /// Returns the devices in words.
    pub(super) fn words(&self) -> String {
        let names: Vec<_> = self.gpus.iter().map(|name| safe(name)).collect();
        match self.backend {
            Backend::None => "no GPU".to_owned(),
            backend => format!("{} ({})", names.join(", "), backend.name()),
        }
    }
}

/// Runs the command.
pub(super) fn run(arguments: &EstimateArguments) -> Result<Exit, Failure> {
    if let Some(path) = &arguments.cases {
        return bill_cases(path);
    }
    let Some(file) = &arguments.file else {
        return Err(Failure::Usage("a GGUF file is wanted".into()));
    };
    let files = ModelFiles::read(file)?;
    let config = ask::config();
    let target = target(&arguments.devices, ask::picture(&config), &config.fit)?;
    let profile = match &arguments.settings.engine {
        Some(profile) => profile.clone(),
        None => config.fit.engine.parse().unwrap_or_default(),
    };
    let is_json = arguments.format.json;
    let fit = if files.is_projector() {
        let projector = read_projector(file)?;
        if arguments.settings.mmproj.is_some() {
            let path = safe_path(file);
            return Err(Failure::Usage(format!("{path} is a projector itself; --mmproj goes with a model")));
        }
        let estimate = projector::estimate(files, &projector, &target, &profile);
        tell(&estimate, is_json, projector::render)?;
        estimate.fit
    } else {
        let estimate = estimate(&files, arguments, &target, profile)?;
        tell(&estimate, is_json, render)?;
        estimate.fit
    };
    Ok(fit.map_or(Exit::Yes, |fit| fit.now.verdict.into()))
}

fn tell<T: Serialize>(estimate: &T, is_json: bool, render: fn(&T, Option<usize>) -> String) -> Result<(), Failure> {
    if is_json { print_json(estimate) } else { print(&render(estimate, columns())) }
}

/// Bills every case of a file; one that cannot be billed says so in its line.
fn bill_cases(path: &Path) -> Result<Exit, Failure> {
    let output = BufWriter::new(io::stdout().lock());
    let billed = if path.as_os_str() == "-" {
        cases::run(io::stdin().lock(), output)
    } else {
        let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
        cases::run(BufReader::new(file), output)
    };
    match billed {
        Ok(0) => Ok(Exit::Yes),
        Ok(failed) => {
            talk(&format!("{} could not be billed", words::count(failed, "case")));
            Ok(Exit::Yes)
        }
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Yes),
        Err(error) => Err(Failure::Output(error)),
    }
}

fn estimate(
    files: &ModelFiles,
    arguments: &EstimateArguments,
    target: &Target,
    profile: EngineProfile,
) -> Result<Estimate, Failure> {
    let structure = &files.structure;
    let usual = settings_for(structure, None, &AppSettings::default());
    let settings = settings(&arguments.settings, usual, structure.context_train);
    let projector_path = arguments.settings.mmproj.clone();
    let projector = projector_path.as_deref().map(read_projector).transpose()?.map(Arc::new);
    let bill = memory::bill(structure, projector.as_deref(), &settings.settings, &target.devices, &profile);
    let plan = Plan::new(Arc::clone(structure), projector, settings.settings.clone(), Arc::new(profile));
    let (fit, advice) = verdicts(plan, target);
    let devices = DevicesForm::of(target);
    Ok(Estimate {
        schema: SCHEMA,
        notes: notes(files, arguments, target),
        file: files.path.clone(),
        files: files.count,
        bytes: structure.file_bytes,
        architecture: structure.architecture.clone(),
        kind: structure.kind,
        quantisation: structure.quantisation.clone(),
        parameters: structure.parameters,
        context_train: structure.context_train,
        projector: projector_path,
        settings,
        pools: bill::forms(&bill, &devices.gpus),
        devices,
        total: bill.total(),
        bill,
        fit,
        advice,
    })
}

fn verdicts(mut plan: Plan, target: &Target) -> (Option<Fit>, Vec<Advice>) {
    if !target.is_judged {
        return (None, Vec::new());
    }
    let now = judge(&mut plan, &target.now);
    let machine = judge(&mut plan, &target.best);
    let advice = advice(&plan, &target.now, &now);
    (Some(Fit { now, machine, largest_context: largest_context(&plan, &target.now), if_unloaded: None }), advice)
}

/// Returns what is odd or left out.
fn notes(files: &ModelFiles, arguments: &EstimateArguments, target: &Target) -> Vec<String> {
    let mut notes = files.notes.clone();
    if arguments.settings.mmproj.is_none()
        && let Some(projector) = projector_beside(&files.path)
    {
        let projector = safe_path(&projector);
        notes.push(format!("a projector lies beside it and is not counted; add --mmproj {projector}"));
    }
    if asks_for_missing_gpus(&arguments.settings, &target.devices) {
        notes.push("there is no GPU to put layers on; name one with --gpu NAME=SIZE".into());
    }
    if !target.is_judged {
        notes.push("no verdict: the GPU has no size; name one with --gpu NAME=SIZE".into());
    }
    notes
}

/// Returns the estimate as text.
fn render(estimate: &Estimate, columns: Option<usize>) -> String {
    let mut facts = Facts::new(columns);
    facts.heading(&safe(&estimate.file.file_name().unwrap_or_default().to_string_lossy()));
    facts.fact("file", &words::files(&estimate.file, estimate.files, estimate.bytes));
    facts.fact(
        "model",
        &words::model(
            Some(&estimate.architecture),
            Some(estimate.kind),
            Some(estimate.parameters),
            estimate.quantisation.as_deref(),
            Some(estimate.context_train),
        ),
    );
    if let Some(projector) = &estimate.projector {
        facts.fact("projector", &safe_path(projector));
    }
    facts.settings(&estimate.settings);
    facts.fact("devices", &estimate.devices.words());
    facts.bill(&estimate.bill, &estimate.devices.gpus);
    if let Some(fit) = &estimate.fit {
        facts.verdicts(fit);
    }
    facts.advice(&estimate.advice);
    facts.points("Assumed", estimate.settings.assumptions.iter().chain(&estimate.bill.assumptions));
    facts.points("Notes", &estimate.notes);
    facts.text
}
