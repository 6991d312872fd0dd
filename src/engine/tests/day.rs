//! Random days. A failure prints its seed and timeline; the seed replays it.

use super::*;

/// What the day must hold at its end, whatever happened in it.
#[test]
fn after_any_day_the_engine_agrees_with_one_that_starts_afresh() {
    for seed in 0..12 {
        let mut world = random_day(seed);
        // Downloads end, the disk is back, and everything is looked at once more.
        world.set_mounted(true);
        world.finish_downloads();
        world.pass(Span::minutes(45));
        let mut fresh = World::new(loud());
        fresh.adopt_files(&world);
        fresh.sample = world.sample.clone();
        fresh.lm_studio = world.lm_studio.clone();
        fresh.send(Event::LmStudioChanged);
        fresh.pass(Span::minutes(45));
        let models = |world: &World| world.report().models;
        assert_eq!(models(&world), models(&fresh), "seed {seed}\n{}", world.timeline);
    }
}

#[test]
fn no_day_breaks_the_rate_rules() {
    for seed in 100..112 {
        let world = random_day(seed);
        let times: Vec<Moment> = world.notices.iter().map(|(at, _)| *at).collect();
        for pair in times.windows(2) {
            assert!(pair[1].since(pair[0]) >= Span::seconds(60), "seed {seed}\n{}", world.timeline);
        }
        for four in times.windows(5) {
            // Three an hour, then one digest.
            assert!(four[4].since(four[0]) >= Span::minutes(60), "seed {seed}\n{}", world.timeline);
        }
    }
}

#[test]
fn equal_days_have_equal_outcomes() {
    let (first, second) = (random_day(7), random_day(7));
    assert_eq!(first.timeline, second.timeline);
    assert_eq!(first.trays, second.trays);
}

/// Lives through a day of downloads, removals, games, suspends and lost disks.
fn random_day(seed: u64) -> World {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut world = World::new(loud());
    for index in 0..random.below(6) {
        world.write(&format!("p/r{index}/m{index}.gguf"), model(4 + random.below(40)));
    }
    for _ in 0..200 {
        let name = random.below(8);
        let path = format!("p/r{name}/m{name}.gguf");
        match random.below(9) {
            0 | 1 => world.write(&path, model(4 + random.below(40))),
            2 => world.write(&path, cut()),
            3 => world.remove(&path),
            4 => world.set_gpu_free(u64::from(1 + random.below(23)) * GB),
            5 => world.set_mounted(random.below(2) == 0),
            6 => world.sleep(Span::minutes(u64::from(random.below(200)))),
            7 => world.send(Event::EverythingDirty),
            _ => {
                let saved = LoadSettings { context_length: Some(1_024 << random.below(7)), ..LoadSettings::default() };
                world.lm_studio.saved.insert(path, saved);
                world.send(Event::LmStudioChanged);
            }
        }
        world.pass(Span(u64::from(random.below(600_000))));
    }
    world
}

/// A small generator, so that a seed is a day on every machine (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        u32::try_from(number).unwrap() % limit
    }
}
