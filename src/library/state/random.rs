//! Whatever happens in whatever order: once all has settled, the library shows what one built from
//! scratch shows.

use proptest::prelude::*;

use super::simulation::{Content, Simulation};
use super::{Library, Moment, Remembered};
use crate::library::{Model, Want};
use crate::memory::Kind;
use crate::units::Span;

/// Something that happens on the disk, and whether anybody is told.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, u64, Content),
    Remove(usize),
    RemoveFolder(usize),
    Rename(usize, usize),
    RenameFolder(usize, usize),
    Link(usize, usize, bool),
    Dirty(usize),
    Rescan,
    Wait(u64),
    /// A walk begins now and comes back so many milliseconds later.
    SlowWalks(u64),
}

const FOLDERS: [&str; 5] = ["a/one", "a/two", "b/one", "b/one/deep", "c"];

const FILES: [&str; 12] = [
    "model.gguf",
    "downloading_model.gguf.part",
    "model.gguf.aria2",
    "other.gguf",
    "mmproj-a.gguf",
    "mmproj-b.gguf",
    "s-00001-of-00002.gguf",
    "s-00002-of-00002.gguf",
    "downloading_s-00002-of-00002.gguf.part",
    "config.json",
    "model.safetensors",
    "readme.md",
];

fn name(number: usize) -> String {
    format!("{}/{}", FOLDERS[number / FILES.len() % FOLDERS.len()], FILES[number % FILES.len()])
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        4 => Just(Content::Model(Kind::Language)),
        1 => Just(Content::Model(Kind::Drafter)),
        1 => Just(Content::Model(Kind::Embedding)),
        2 => (1_u64..9).prop_map(Content::Projector),
        1 => Just(Content::Cut),
        1 => Just(Content::Bad),
    ]
}

fn step() -> impl Strategy<Value = (Step, bool)> {
    let file = || 0..FOLDERS.len() * FILES.len();
    let folder = || 0..FOLDERS.len();
    let step = prop_oneof![
        6 => (file(), 0_u64..5, content()).prop_map(|(file, bytes, content)| Step::Write(file, bytes, content)),
        2 => file().prop_map(Step::Remove),
        1 => folder().prop_map(Step::RemoveFolder),
        2 => (file(), file()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => (folder(), folder()).prop_map(|(from, to)| Step::RenameFolder(from, to)),
        2 => (file(), file(), any::<bool>()).prop_map(|(to, file, is_hard)| Step::Link(to, file, is_hard)),
        1 => file().prop_map(Step::Dirty),
        1 => Just(Step::Rescan),
        5 => (0_u64..3_000).prop_map(Step::Wait),
        2 => (0_u64..3_000).prop_map(Step::SlowWalks),
    ];
    (step, prop::bool::weighted(0.8))
}

fn take(sim: &mut Simulation, step: Step, is_told: bool) {
    let library = std::mem::take(&mut sim.library);
    let has = |sim: &Simulation, file: usize| sim.disk.files.contains_key(&sim.path(&name(file)));
    match step {
        Step::Write(file, bytes, content) => sim.put(&name(file), bytes, content),
        Step::Remove(file) => sim.remove(&name(file)),
        Step::RemoveFolder(folder) => sim.remove(FOLDERS[folder]),
        Step::Rename(from, to) if has(sim, from) && from != to => sim.rename(&name(from), &name(to)),
        Step::RenameFolder(from, to) if !FOLDERS[to].starts_with(FOLDERS[from]) => {
            sim.rename(FOLDERS[from], FOLDERS[to]);
        }
        Step::Link(to, file, true) if has(sim, to) && !has(sim, file) => sim.hard_link(&name(to), &name(file)),
        Step::Link(to, file, false) if has(sim, to) && !has(sim, file) => sim.link(&name(to), &name(file)),
        Step::Dirty(file) => sim.touch(&name(file)),
        // What is not possible as the disk stands, and what does not concern it.
        Step::Rename(..)
        | Step::RenameFolder(..)
        | Step::Link(..)
        | Step::Rescan
        | Step::Wait(_)
        | Step::SlowWalks(_) => {}
    }
    sim.library = library;
    if is_told {
        let heard: Vec<_> = sim.heard.drain(..).collect();
        for path in heard {
            sim.library.dirty(&path, sim.now);
        }
    }
    sim.heard.clear();
}

fn run(sim: &mut Simulation, steps: Vec<(Step, bool)>) {
    for (step, is_told) in steps {
        match step {
            Step::Rescan => sim.library.rescan(sim.now),
            Step::Wait(ms) => sim.run_for(Span(ms)),
            Step::SlowWalks(ms) => walk_slowly(sim, Span(ms)),
            step => take(sim, step, is_told),
        }
    }
}

/// Lets walks begin, lets time pass without the library, and hands their old findings over.
fn walk_slowly(sim: &mut Simulation, span: Span) {
    let wants = sim.library.wants(sim.now);
    let mut listings = Vec::new();
    for want in wants {
        match want {
            Want::Scan { root, under } => listings.push(sim.disk.listing(&root, &under)),
            Want::ReadHeader { files } => sim.read(files),
        }
    }
    sim.now = sim.now.after(span);
    listings.into_iter().rev().for_each(|listing| sim.library.listed(listing, sim.now));
}

/// What is shown, but for when it began.
fn picture(library: &Library) -> Vec<Model> {
    library.models().iter().map(|model| Model { since: Moment(0), ..model.clone() }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_settled_library_equals_one_built_from_scratch(steps in prop::collection::vec(step(), 1..60)) {
        let mut sim = Simulation::with(&[]);
        sim.start();
        run(&mut sim, steps);
        // Notifications may have been lost: the half-hourly scan finds what they left out.
        sim.run_for(Span::minutes(45));
        let mut fresh = Simulation { disk: sim.disk.clone(), ..Simulation::with(&[]) };
        fresh.start();
        fresh.run_for(Span::minutes(45));
        prop_assert_eq!(picture(&sim.library), picture(&fresh.library));
        // And with what is remembered, it comes to the same.
        let mut again = Simulation { disk: sim.disk.clone(), ..Simulation::with(&[]) };
        again.library = Library::new(sim.library.remembered());
        again.start();
        again.run_for(Span::minutes(45));
        prop_assert_eq!(picture(&again.library), picture(&fresh.library));
    }

    #[test]
    fn a_library_that_hears_of_everything_is_right_within_seconds(steps in prop::collection::vec(step(), 1..40)) {
        let mut sim = Simulation::with(&[]);
        sim.start();
        let heard = steps.into_iter().map(|(step, _)| (step, true)).collect();
        run(&mut sim, heard);
        sim.run_for(Span::seconds(8));
        let mut fresh = Simulation { disk: sim.disk.clone(), ..Simulation::with(&[]) };
        fresh.start();
        let cut_aside = |models: Vec<Model>| -> Vec<(String, usize)> {
            models.into_iter().map(|model| (model.id.0, model.files.len())).collect()
        };
        prop_assert_eq!(cut_aside(picture(&sim.library)), cut_aside(picture(&fresh.library)));
    }

    #[test]
    fn the_revision_tells_of_every_change(steps in prop::collection::vec(step(), 1..40)) {
        let mut sim = Simulation::with(&[]);
        sim.start();
        for step in steps {
            let before = (sim.library.revision(), sim.library.models().to_vec(), sim.library.roots());
            run(&mut sim, vec![step]);
            let is_same = before.1 == sim.library.models() && before.2 == sim.library.roots();
            prop_assert!(is_same || sim.library.revision() > before.0);
        }
        let remembered: Remembered = sim.library.remembered();
        prop_assert!(remembered.0.iter().all(|(files, _)| !files.is_empty()));
    }
}
