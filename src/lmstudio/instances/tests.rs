//! Loaded models over libraries made of values: each trap of joining and mapping by name.

use std::path::{Path, PathBuf};

use super::*;
use crate::library::{FileIdentity, FoundFile, Library, Listing, ModelId, Origin, Remembered, Root, RootState};
use crate::lmstudio::{Asked, EngineFile, Hub, IndexHint, LoadSettings, VirtualModel};
use crate::units::{Bytes, Moment};

const ROOT: &str = "/data/models";
const QWEN: &str = "comm/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf";
const QWEN_8: &str = "comm/Qwen3-8B-GGUF/Qwen3-8B-Q8_0.gguf";
const GPT: &str = "comm/gpt-oss-20b-GGUF/gpt-oss-20b-MXFP4.gguf";
const SHARD: &str = "big/Huge-GGUF/Huge-Q4_K_M-00001-of-00002.gguf";
const SHARD_2: &str = "big/Huge-GGUF/Huge-Q4_K_M-00002-of-00002.gguf";
const EMBED: &str = "nomic-ai/nomic-embed-text-v1.5-GGUF/nomic-embed-text-v1.5.Q4_K_M.gguf";
const LINKED: &str = "linked/Tiny-GGUF/tiny.gguf";
const ALIAS: &str = "alias/Tiny-GGUF/tiny.gguf";
const MLX: &str = "comm/Qwen3-VL-MLX-4bit";

/// A library and what goes with it.
struct World {
    library: Library,
    hub: Hub,
    hints: IndexHints,
    instances: Instances,
}

impl World {
    fn new() -> World {
        let files = [(QWEN, 5_000), (QWEN_8, 8_000), (GPT, 12_000), (SHARD, 900), (SHARD_2, 800), (EMBED, 84)];
        let mut found: Vec<FoundFile> =
            (10_u64..).zip(files).map(|(number, (name, bytes))| file(name, number, bytes)).collect();
        found.extend(
            [LINKED, ALIAS].map(|name| FoundFile { target: "/elsewhere/tiny.gguf".into(), ..file(name, 99, 70) }),
        );
        found
            .extend([file(&format!("{MLX}/config.json"), 50, 9), file(&format!("{MLX}/model.safetensors"), 51, 5_776)]);
        let mut library = Library::new(Remembered::default());
        library.set_roots(vec![Root { path: ROOT.into(), origin: Origin::LmStudio }], Moment(0));
        let listing = Listing {
            root: ROOT.into(),
            under: ROOT.into(),
            state: RootState::Present,
            files: found,
            notes: Vec::new(),
        };
        library.listed(listing, Moment(0));
        let bases = vec!["comm/gpt-oss-20b-GGUF".to_owned()];
        let virtual_model = VirtualModel { bases, load: LoadSettings::default() };
        let hub = Hub::new(BTreeMap::from([("openai/gpt-oss-20b".to_owned(), virtual_model)]));
        World { library, hub, hints: IndexHints::new(), instances: Instances::default() }
    }

    fn shelves(&self) -> Shelves<'_> {
        Shelves { library: &self.library, hub: &self.hub, hints: &self.hints }
    }

    /// Takes a round in and settles it.
    fn take(&mut self, round: Round) -> bool {
        let has_changed = self.instances.take(round);
        let (library, hub, hints) = (&self.library, &self.hub, &self.hints);
        self.instances.settle(Shelves { library, hub, hints });
        has_changed
    }

    /// Returns each instance with its process, whereabouts and model.
    fn shown(&self) -> Vec<String> {
        let one = |instance: &Instance| {
            let process = instance.process.as_ref().map_or("-".to_owned(), |process| process.pid.to_string());
            let place = match &instance.whereabouts {
                Whereabouts::Here => "here".to_owned(),
                Whereabouts::Elsewhere(device) => format!("on {device}"),
                Whereabouts::Unclear => "unclear".to_owned(),
            };
            let model = match mapping(instance, self.shelves()) {
                Mapping::One(id) => id.0,
                Mapping::Several(ids) => format!("one of {}", ids.len()),
                Mapping::None => "unknown".to_owned(),
            };
            format!("{} {process} {place} {model}", instance.id)
        };
        self.instances.list().iter().map(one).collect()
    }

    fn mapped(&self, told: &LoadedModel) -> Mapping {
        map_loaded(told, self.shelves())
    }
}

fn file(name: &str, number: u64, bytes: u64) -> FoundFile {
    let path = Path::new(ROOT).join(name);
    FoundFile { target: path.clone(), path, identity: FileIdentity(1, number), bytes: Bytes(bytes), modified_ms: 1 }
}

/// A row of the websocket.
fn row(identifier: &str, path: &str, context: u32) -> LoadedModel {
    LoadedModel {
        identifier: identifier.into(),
        key: Some(identifier.split(':').next().unwrap().into()),
        path: Some(path.into()),
        indexed_identifier: Some(path.into()),
        format: Some("gguf".into()),
        context: Some(context),
        ..LoadedModel::default()
    }
}

/// A row of REST: no path.
fn rest_row(identifier: &str, bytes: Option<u64>, quantisation: &str) -> LoadedModel {
    LoadedModel {
        identifier: identifier.into(),
        key: Some(identifier.split(':').next().unwrap().into()),
        bytes: bytes.map(Bytes),
        quantisation: Some(quantisation.into()),
        context: Some(4_096),
        ..LoadedModel::default()
    }
}

fn process(pid: u32, kind: EngineKind, path: &str, context: u32) -> EngineProcess {
    let model = (kind != EngineKind::Worker).then(|| PathBuf::from(path));
    EngineProcess {
        pid,
        started_ms: u64::from(pid),
        kind,
        runtime: None,
        asked: Asked { model, context: Some(context), ..Asked::default() },
        file: None,
    }
}

fn server(pid: u32, name: &str, context: u32) -> EngineProcess {
    process(pid, EngineKind::Server, &format!("{ROOT}/{name}"), context)
}

fn worker(pid: u32) -> EngineProcess {
    process(pid, EngineKind::Worker, "", 0)
}

fn round(socket: Said<Vec<LoadedModel>>, rest: Said<Vec<LoadedModel>>, processes: Said<Vec<EngineProcess>>) -> Round {
    let backend = Some(RunningBackend { pid: Some(5), ..RunningBackend::default() });
    Round { backend, socket, rest, processes, ..Round::default() }
}

fn socket(rows: Vec<LoadedModel>, processes: Vec<EngineProcess>) -> Round {
    round(Said::Is(rows), Said::NotAsked, Said::Is(processes))
}

fn one(id: &str) -> Mapping {
    Mapping::One(ModelId(id.into()))
}

#[test]
fn an_instance_and_its_engine_are_one() {
    let mut world = World::new();
    world.take(socket(vec![row("qwen3-8b", QWEN, 4_096)], vec![server(40, QWEN, 4_096)]));
    assert_eq!(world.shown(), [format!("qwen3-8b 40 here {QWEN}")]);
    assert_eq!(world.instances.list()[0].sources, [Source::Websocket, Source::Processes]);
}

#[test]
fn a_virtual_model_is_attached_and_mapped_by_the_file_it_stands_for() {
    let mut world = World::new();
    let told = row("openai/gpt-oss-20b", "openai/gpt-oss-20b", 8_192);
    world.take(socket(
        vec![told.clone(), row("qwen3-8b", QWEN, 8_192)],
        vec![server(40, GPT, 8_192), server(41, QWEN, 8_192)],
    ));
    assert_eq!(world.shown(), [format!("openai/gpt-oss-20b 40 here {GPT}"), format!("qwen3-8b 41 here {QWEN}")]);
    assert_eq!(world.mapped(&told), one(GPT));
}

#[test]
fn a_virtual_model_without_a_hub_entry_is_found_through_the_index() {
    let mut world = World::new();
    world.hub = Hub::default();
    let told = LoadedModel { key: Some("acme/own".into()), ..row("acme/own", "acme/own", 4_096) };
    assert_eq!(world.mapped(&told), Mapping::None);
    let hint = IndexHint { identifier: Some(GPT.into()), path: None };
    world.hints.insert("acme/own".into(), hint);
    assert_eq!(world.mapped(&told), one(GPT));
    let path = Path::new(ROOT).join(QWEN);
    world
        .hints
        .insert("acme/own".into(), IndexHint { identifier: Some("gone/gone/gone.gguf".into()), path: Some(path) });
    assert_eq!(world.mapped(&told), one(QWEN));
    let stale = IndexHint { identifier: Some("gone/gone/gone.gguf".into()), path: Some("/gone.gguf".into()) };
    world.hints.insert("acme/own".into(), stale);
    assert_eq!(world.mapped(&told), Mapping::None, "rows outlive their files");
}

#[test]
fn the_index_is_asked_for_what_is_in_doubt_and_only_once() {
    let mut world = World::new();
    world.take(socket(vec![row("acme/own", "acme/own", 4_096), row("qwen3-8b", QWEN, 4_096)], vec![]));
    let (library, hub, hints) = (&world.library, &world.hub, IndexHints::new());
    let shelves = Shelves { library, hub, hints: &hints };
    assert_eq!(world.instances.in_doubt(shelves), BTreeSet::from(["acme/own".to_owned()]));
    assert_eq!(world.instances.in_doubt(shelves), BTreeSet::new());
    let hints = IndexHints::from([("acme/own".to_owned(), IndexHint::default())]);
    world.instances.take(Round { hints: hints.clone(), ..socket(vec![], vec![]) });
    assert_eq!(world.instances.hints(), &hints);
}

#[test]
fn a_model_in_shards_is_meant_by_any_of_its_shards() {
    let mut world = World::new();
    assert_eq!(world.mapped(&row("huge", SHARD, 1)), one(SHARD));
    assert_eq!(world.mapped(&row("huge", SHARD_2, 1)), one(SHARD));
    world.take(socket(vec![row("huge", SHARD, 512)], vec![server(40, SHARD_2, 512)]));
    assert_eq!(world.shown(), [format!("huge 40 here {SHARD}")]);
    for bytes in [900, 1_700] {
        assert_eq!(world.mapped(&rest_row("huge", Some(bytes), "Q4_K_M")), one(SHARD), "{bytes}");
    }
}

#[test]
fn links_lead_to_the_model_they_are_links_to() {
    let mut world = World::new();
    let shown = world.library.models_of(&Path::new(ROOT).join(LINKED), None);
    assert_eq!(shown, world.library.models_of(&Path::new(ROOT).join(ALIAS), None));
    assert_eq!(shown.len(), 1);
    for name in [LINKED, ALIAS] {
        assert_eq!(world.mapped(&row("tiny", name, 1)), Mapping::One(shown[0].clone()), "{name}");
    }
    let file = EngineFile { path: "/elsewhere/tiny.gguf".into(), identity: FileIdentity(1, 99), bytes: Bytes(70) };
    let through =
        EngineProcess { file: Some(file), ..process(40, EngineKind::Server, "/mnt/some/other/way.gguf", 512) };
    world.take(socket(vec![row("tiny", ALIAS, 512)], vec![through]));
    assert_eq!(world.shown(), [format!("tiny 40 here {}", shown[0].0)]);
}

#[test]
fn of_two_quants_in_a_folder_the_size_or_the_name_decides() {
    let world = World::new();
    let told = |bytes, quantisation| rest_row("qwen3-8b", bytes, quantisation);
    assert_eq!(world.mapped(&told(Some(5_000), "Q4_K_M")), one(QWEN));
    assert_eq!(world.mapped(&told(Some(8_000), "Q8_0")), one(QWEN_8));
    assert_eq!(world.mapped(&told(None, "Q8_0")), one(QWEN_8));
    assert_eq!(world.mapped(&rest_row("qwen3-8b@q8_0", None, "")), one(QWEN_8));
    let variant = LoadedModel { variant: Some("qwen/qwen3-8b@q8_0".into()), ..rest_row("qwen/qwen3-8b", None, "") };
    assert_eq!(world.mapped(&variant), one(QWEN_8));
    let both = Mapping::Several(vec![ModelId(QWEN.into()), ModelId(QWEN_8.into())]);
    assert_eq!(world.mapped(&told(None, "Q2_K")), both);
    assert_eq!(world.mapped(&told(Some(4_711), "Q4_K_M")), Mapping::None, "no file here has that size");
}

#[test]
fn a_process_decides_where_names_leave_two_files() {
    let mut world = World::new();
    let told = LoadedModel { quantisation: None, ..rest_row("qwen3-8b", None, "") };
    world.take(round(Said::Absent, Said::Is(vec![told]), Said::Is(vec![server(40, QWEN_8, 4_096)])));
    assert_eq!(world.shown(), [format!("qwen3-8b 40 here {QWEN_8}")]);
}

#[test]
fn two_instances_of_one_model_have_each_their_own_process() {
    let mut world = World::new();
    let rows = || vec![row("qwen3-8b", QWEN, 4_096), row("qwen3-8b:2", QWEN, 32_768)];
    world.take(socket(rows(), vec![server(40, QWEN, 32_768), server(41, QWEN, 4_096)]));
    assert_eq!(world.shown(), [format!("qwen3-8b 41 here {QWEN}"), format!("qwen3-8b:2 40 here {QWEN}")]);
    world.take(socket(vec![row("a", QWEN, 1), row("a:2", QWEN, 1)], vec![server(7, QWEN, 1), server(8, QWEN, 1)]));
    assert_eq!(world.shown(), [format!("a 7 here {QWEN}"), format!("a:2 8 here {QWEN}")]);
}

#[test]
fn case_and_separators_do_not_matter() {
    let world = World::new();
    for name in [QWEN.to_uppercase(), QWEN.to_lowercase(), QWEN.replace('/', "\\")] {
        assert_eq!(world.mapped(&row("x-y-z", &name, 1)), one(QWEN), "{name}");
    }
    assert_eq!(world.mapped(&row("x", "OPENAI/GPT-OSS-20B", 1)), one(GPT));
}

#[test]
fn an_mlx_model_is_its_folder_and_lives_in_the_worker() {
    let mut world = World::new();
    let told = LoadedModel { format: Some("safetensors".into()), ..row("qwen3-vl", MLX, 4_096) };
    world.take(socket(vec![told, row("nomic", EMBED, 2_048)], vec![worker(9)]));
    assert_eq!(world.shown(), [format!("qwen3-vl 9 here {MLX}"), format!("nomic 9 here {EMBED}")]);
    let list = world.instances.list();
    assert!(list.iter().all(|instance| instance.is_in_worker() && instance.sharers == 2));
    world.take(socket(vec![row("nomic", EMBED, 2_048)], vec![worker(9), worker(10)]));
    assert_eq!(world.shown(), [format!("nomic - here {EMBED}")], "it cannot be told in which");
}

#[test]
fn an_idle_worker_is_no_loaded_model() {
    let mut world = World::new();
    world.take(round(Said::Is(vec![]), Said::NotAsked, Said::Is(vec![worker(9)])));
    assert_eq!((world.shown(), world.instances.workers().count()), (vec![], 1));
    assert_eq!(world.instances.standing(), Standing::Runs);
}

#[test]
fn what_is_loaded_on_another_machine_is_recognised_and_has_no_model_here() {
    let mut world = World::new();
    let remote = LoadedModel { device: Some("c0ffee".into()), ..row("qwen3-8b", QWEN, 4_096) };
    // This machine's own device is none by the time it comes here.
    let own = row("tiny", LINKED, 512);
    world.take(socket(vec![remote, own], vec![server(40, QWEN, 4_096)]));
    let shown = world.shown();
    assert_eq!(shown[0], "qwen3-8b - on c0ffee unknown");
    assert!(shown[1].starts_with("tiny - here"), "{shown:?}");
    assert_eq!(shown[2], format!("pid 40 40 here {QWEN}"), "the process here is not that instance");
}

#[test]
fn what_only_rest_tells_is_unclear_until_a_process_stands_behind_it() {
    let mut world = World::new();
    let rows = || Said::Is(vec![rest_row("qwen3-8b", Some(5_000), "Q4_K_M")]);
    world.take(round(Said::Failed("hangs".into()), rows(), Said::Is(vec![])));
    assert_eq!(world.shown(), [format!("qwen3-8b - unclear {QWEN}")]);
    world.take(round(Said::NotAsked, rows(), Said::Is(vec![server(40, QWEN, 4_096)])));
    assert_eq!(world.shown(), [format!("qwen3-8b 40 here {QWEN}")]);
}

#[test]
fn a_process_that_no_interface_knows_stands_for_itself() {
    let mut world = World::new();
    let by_hand = process(4_711, EngineKind::ByHand, &format!("{ROOT}/{QWEN}"), 0);
    let taken = Round { processes: Said::Is(vec![by_hand.clone()]), ..Round::default() };
    world.take(taken);
    assert_eq!(world.shown(), [format!("pid 4711 4711 here {QWEN}")]);
    assert_eq!(world.instances.list()[0].model, None);
    world.take(socket(vec![row("qwen3-8b", QWEN, 4_096)], vec![by_hand]));
    assert_eq!(world.shown()[0], format!("qwen3-8b - here {QWEN}"), "LM Studio's instance is not in it");
    assert_eq!(world.shown()[1], format!("pid 4711 4711 here {QWEN}"));
}

#[test]
fn the_last_two_belong_together_only_where_something_speaks_for_it() {
    let mut world = World::new();
    let stranger = process(40, EngineKind::Server, "/not/in/the/library.gguf", 4_096);
    world.take(socket(vec![row("new/one", "new/one", 4_096)], vec![stranger.clone()]));
    assert_eq!(world.shown(), ["new/one 40 here unknown"]);
    world.take(socket(vec![row("new/one", "new/one", 512)], vec![stranger]));
    assert_eq!(world.shown(), ["new/one - here unknown", "pid 40 40 here unknown"]);
    world.take(socket(vec![row("qwen3-8b", QWEN, 4_096)], vec![server(41, GPT, 4_096)]));
    assert_eq!(world.shown(), [format!("qwen3-8b - here {QWEN}"), format!("pid 41 41 here {GPT}")]);
}

#[test]
fn a_stray_projector_is_no_loaded_model() {
    let mut world = World::new();
    let by_name = row("mmproj-model-f16@?", "a/b/mmproj-model-f16.gguf", 0);
    let by_kind = LoadedModel { architecture: Some("clip".into()), ..row("mmproj", "a/b/mmproj.gguf", 0) };
    world.take(socket(vec![by_name, by_kind], vec![]));
    assert_eq!(world.shown(), Vec::<String>::new());
}

#[test]
fn a_side_that_was_not_asked_keeps_what_it_said() {
    let mut world = World::new();
    let first = socket(vec![row("qwen3-8b", QWEN, 4_096)], vec![server(40, QWEN, 4_096)]);
    assert!(world.take(first.clone()));
    assert!(!world.take(first), "nothing has changed");
    let before = world.shown();
    assert!(!world.take(round(Said::NotAsked, Said::NotAsked, Said::NotAsked)));
    world.take(round(Said::Failed("slow".into()), Said::NotAsked, Said::NotAsked));
    assert_eq!(world.shown(), before, "a slow answer unloads nothing");
    assert!(world.instances.unknown().is_none(), "it is told already");
}

#[test]
fn an_instance_that_is_gone_was_unloaded() {
    let mut world = World::new();
    world.take(socket(vec![row("qwen3-8b", QWEN, 4_096)], vec![server(40, QWEN, 4_096)]));
    assert!(world.take(socket(vec![], vec![])));
    assert_eq!(world.shown(), Vec::<String>::new());
    world.take(socket(vec![row("qwen3-8b", QWEN, 4_096)], vec![]));
    world.take(Round { processes: Said::NotAsked, ..Round::default() });
    assert_eq!(world.shown(), Vec::<String>::new(), "LM Studio has ended");
    assert_eq!(world.instances.standing(), Standing::Nothing);
}

#[test]
fn the_newer_of_two_answers_counts() {
    let mut world = World::new();
    let rows = vec![row("qwen3-8b", QWEN, 4_096), row("qwen3-8b:2", QWEN, 4_096), row("tiny", LINKED, 1)];
    world.take(round(Said::Is(rows), Said::Is(vec![rest_row("qwen3-8b", None, "")]), Said::Is(vec![])));
    assert_eq!(world.instances.list().len(), 3);
    world.take(round(Said::NotAsked, Said::Is(vec![rest_row("qwen3-8b", None, "")]), Said::NotAsked));
    let ids: Vec<&str> = world.instances.list().iter().map(|instance| instance.id.as_str()).collect();
    assert_eq!(ids, ["qwen3-8b", "qwen3-8b:2"], "v0 may list a second instance by its key");
    world.take(round(Said::Is(vec![]), Said::NotAsked, Said::NotAsked));
    assert_eq!(world.instances.list().len(), 0);
}

#[test]
fn rows_of_both_interfaces_are_one_and_each_adds_what_it_knows() {
    let mut world = World::new();
    let rest = LoadedModel {
        load: LoadSettings { parallel: Some(2), batch: Some(512), ..LoadSettings::default() },
        name: Some("Qwen".into()),
        ..rest_row("qwen3-8b", Some(5_000), "Q4_K_M")
    };
    let own = LoadedModel {
        load: LoadSettings { parallel: Some(4), ..LoadSettings::default() },
        ..row("qwen3-8b", QWEN, 16_384)
    };
    world.take(round(Said::Is(vec![own]), Said::Is(vec![rest]), Said::NotAsked));
    let [instance] = world.instances.list() else { panic!("{:?}", world.shown()) };
    let told = instance.model.as_ref().unwrap();
    assert_eq!((told.context, told.load.parallel, told.load.batch), (Some(16_384), Some(4), Some(512)));
    assert_eq!((told.name.as_deref(), told.bytes), (Some("Qwen"), Some(Bytes(5_000))));
    assert_eq!(instance.sources, [Source::Websocket, Source::Rest]);
}

#[test]
fn a_refusal_is_said_and_the_processes_still_tell() {
    let mut world = World::new();
    world.take(round(Said::Refused, Said::Refused, Said::Is(vec![server(40, QWEN, 4_096)])));
    assert_eq!(world.shown(), [format!("pid 40 40 here {QWEN}")]);
    assert!(world.instances.unknown().unwrap().contains("API token"), "{:?}", world.instances.unknown());
    world.take(round(Said::Is(vec![]), Said::NotAsked, Said::NotAsked));
    assert_eq!(world.instances.unknown(), None);
}

#[test]
fn what_another_user_runs_is_said() {
    let mut world = World::new();
    let notes = vec!["LM Studio of another user runs (process 8); what it holds cannot be read".to_owned()];
    world.take(Round { processes: Said::Is(vec![]), notes: notes.clone(), ..Round::default() });
    assert_eq!(world.instances.unknown(), notes.first().cloned());
}

#[test]
fn a_generating_instance_is_busy_and_one_elsewhere_is_not_ours() {
    let mut world = World::new();
    let busy = LoadedModel { activity: Some(Activity::Generating), ..row("qwen3-8b", QWEN, 1) };
    world.take(socket(vec![busy.clone()], vec![]));
    assert_eq!(world.instances.standing(), Standing::Busy);
    world.take(socket(vec![LoadedModel { device: Some("far".into()), ..busy }], vec![]));
    assert_eq!(world.instances.standing(), Standing::Runs);
}

#[test]
fn what_changes_in_a_row_leaves_its_process_where_it_was() {
    let mut world = World::new();
    let rows = |used| {
        let told = LoadedModel { last_used_ms: Some(used), ..row("openai/gpt-oss-20b", "openai/gpt-oss-20b", 8_192) };
        socket(vec![told, row("acme/own", "acme/own", 8_192)], vec![server(40, GPT, 8_192)])
    };
    world.take(rows(1));
    let before = world.shown();
    assert_eq!(before[0], format!("openai/gpt-oss-20b 40 here {GPT}"));
    assert!(world.instances.take(rows(2)), "a new time of use");
    assert_eq!(world.shown(), before, "also before the library was asked again");
}
