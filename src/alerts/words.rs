//! The words of notices: the model, the number and what follows from it.

use super::Notice;
use super::text::{counted, elided, outcome, short_device, tidy};
use crate::fit::{Judgement, Verdict};
use crate::units::Bytes;

/// The topic of notices about models that no longer fit.
pub const NO_LONGER_FITS: &str = "no_longer_fits";
/// The topic of notices about new models.
pub const NEW_MODEL: &str = "new_model";
/// The topic of the digest of notices held back.
pub const DIGEST: &str = "digest";

/// The longest title, in characters. Servers cut longer ones.
const TITLE: usize = 44;
/// How many models one notice names.
const NAMED: usize = 3;

/// Returns the notice that a model which fitted no longer does. Without a cause in words, the
/// two judgements say what has changed between them.
pub fn no_longer_fits(name: &str, before: &Judgement, after: &Judgement, cause: Option<&str>) -> Notice {
    let change = match after.verdict {
        Verdict::PartialGpu => " no longer fits fully",
        Verdict::CpuOnly => " no longer fits a GPU",
        Verdict::FullGpu | Verdict::TooLarge | Verdict::Unknown => " no longer fits",
    };
    let body = match cause.map(sentence).or_else(|| difference(before, after)) {
        Some(cause) => format!("{cause} {}", standing(after)),
        None => standing(after),
    };
    Notice { topic: NO_LONGER_FITS.into(), title: titled("", name, change), body }
}

/// Returns the notice that several models which fitted no longer do.
pub fn several_no_longer_fit(names: &[&str], cause: Option<&str>) -> Notice {
    let listed = listed(names);
    let body = match cause.map(sentence) {
        Some(cause) => format!("{cause} {listed}."),
        None => format!("{listed}."),
    };
    Notice { topic: NO_LONGER_FITS.into(), title: format!("{} no longer fit", counted(names.len(), "model")), body }
}

/// Returns the notice of a new model's verdict.
pub fn new_model(name: &str, now: &Judgement) -> Notice {
    Notice { topic: NEW_MODEL.into(), title: titled("New: ", name, ""), body: standing(now) }
}

/// Returns the notice of several new models and their verdicts.
pub fn several_new_models(models: &[(&str, Verdict)]) -> Notice {
    let fitting: Vec<&str> = models.iter().filter(|(_, verdict)| fits(*verdict)).map(|(name, _)| *name).collect();
    let title = match fitting.len() {
        0 => format!("{} new models: none fits", models.len()),
        1 => format!("{} new models: 1 fits", models.len()),
        count => format!("{} new models: {count} fit", models.len()),
    };
    let body = if fitting.is_empty() {
        let names: Vec<&str> = models.iter().map(|(name, _)| *name).collect();
        format!("{}.", listed(&names))
    } else {
        format!("Fitting: {}.", listed(&fitting))
    };
    Notice { topic: NEW_MODEL.into(), title, body }
}

/// Returns the one notice that stands for several held back.
pub fn digest(notices: &[Notice]) -> Notice {
    let titles: Vec<&str> = notices.iter().map(|notice| notice.title.as_str()).collect();
    Notice {
        topic: DIGEST.into(),
        title: format!("{} in the last hour", counted(notices.len(), "notice")),
        body: format!("{}. Run fitwatch status for more.", joined(&titles)),
    }
}

/// Returns whether a verdict counts as fitting without leaving anything behind.
pub(crate) const fn fits(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::FullGpu | Verdict::CpuOnly)
}

/// Returns a title around a name, which gives way where there is too little room.
fn titled(before: &str, name: &str, after: &str) -> String {
    let room = TITLE - before.chars().count() - after.chars().count();
    format!("{before}{}{after}", elided(name, room))
}

/// Returns where a model stands now, as a sentence.
fn standing(judgement: &Judgement) -> String {
    let label = judgement.verdict.label();
    let mut sentence = match judgement.verdict {
        Verdict::FullGpu => format!("{label}, {} on {}.", outcome(judgement), short_device(&judgement.binding)),
        Verdict::Unknown => format!("{label}."),
        Verdict::PartialGpu if judgement.spare < 0 => {
            let (missing, pool) = (Bytes(judgement.spare.unsigned_abs()), short_device(&judgement.binding));
            format!("{label}: {}, {missing} short on {pool} for the rest.", outcome(judgement))
        }
        Verdict::PartialGpu | Verdict::CpuOnly | Verdict::TooLarge => format!("{label}: {}.", outcome(judgement)),
    };
    if let Some(caveat) = &judgement.caveat {
        sentence.push(' ');
        sentence.push_str(&self::sentence(caveat));
    }
    sentence
}

/// Returns what has changed between two judgements, as a sentence: less memory, or more need.
pub(super) fn difference(before: &Judgement, after: &Judgement) -> Option<String> {
    let shrunk = after
        .pools
        .iter()
        .filter_map(|pool| {
            let earlier = before.pools.iter().find(|earlier| earlier.name == pool.name)?;
            let lost = earlier.available.saturating_sub(pool.available);
            (lost > Bytes::ZERO).then_some((pool, lost))
        })
        .max_by_key(|(_, lost)| *lost);
    if let Some((pool, lost)) = shrunk {
        return Some(format!("{} has {lost} less free than before.", short_device(&pool.name)));
    }
    let needed = |judgement: &Judgement| judgement.pools.iter().map(|pool| pool.need).sum::<Bytes>();
    let more = needed(after).saturating_sub(needed(before));
    (more > Bytes::ZERO).then(|| format!("It needs {more} more than before."))
}

/// Returns words as a sentence: a capital first, a full stop last.
fn sentence(words: &str) -> String {
    let words = tidy(words);
    let mut rest = words.chars();
    let start: String = rest.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if words.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{start}{}{end}", rest.as_str())
}

/// Returns the first few names, each short, and how many more there are.
fn listed(names: &[&str]) -> String {
    let short: Vec<String> = names.iter().map(|name| elided(name, 32)).collect();
    joined(&short)
}

/// Returns the first few texts and how many more there are.
fn joined(texts: &[impl AsRef<str>]) -> String {
    let first: Vec<&str> = texts.iter().take(NAMED).map(AsRef::as_ref).collect();
    match texts.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::PoolNeed;

    #[test]
    fn a_notice_names_the_model_the_cause_and_the_number() {
        let before = judgement(Verdict::FullGpu, 2_100_000_000, 23_000_000_000);
        let after = judgement(Verdict::TooLarge, -3_200_000_000, 17_700_000_000);
        let notice = no_longer_fits("Qwen3-8B-Q4_K_M", &before, &after, Some("ComfyUI took 5.3 GB of RTX 4090"));
        assert_eq!(notice.title, "Qwen3-8B-Q4_K_M no longer fits");
        assert_eq!(notice.body, "ComfyUI took 5.3 GB of RTX 4090. Likely too large: 3.2 GB short of RTX 4090.");
        let notice = no_longer_fits("Qwen3-8B-Q4_K_M", &before, &after, None);
        assert_eq!(
            notice.body,
            "RTX 4090 has 5.3 GB less free than before. Likely too large: 3.2 GB short of RTX 4090."
        );
    }

    #[test]
    fn a_model_that_still_fits_partly_is_said_to() {
        let before = judgement(Verdict::FullGpu, 1, 23_000_000_000);
        let after = judgement(Verdict::PartialGpu, -1_800_000_000, 23_000_000_000);
        let notice = no_longer_fits("m", &before, &after, None);
        assert_eq!(notice.title, "m no longer fits fully");
        assert_eq!(
            notice.body,
            "Partial GPU offload possible: 33 of 65 layers on GPU, 1.8 GB short on RTX 4090 for the rest."
        );
    }

    #[test]
    fn more_need_is_a_cause_too() {
        let before = judgement(Verdict::FullGpu, 1, 20_000_000_000);
        let mut after = judgement(Verdict::TooLarge, -1, 20_000_000_000);
        after.pools[0].need = Bytes(25_000_000_000);
        assert!(no_longer_fits("m", &before, &after, None).body.starts_with("It needs 5.0 GB more than before."));
    }

    #[test]
    fn a_title_has_room_for_any_name() {
        let judgement = judgement(Verdict::PartialGpu, 0, 1);
        for length in [0, 1, 20, 45, 300] {
            let name = "x".repeat(length);
            for notice in [new_model(&name, &judgement), no_longer_fits(&name, &judgement, &judgement, None)] {
                assert!(notice.title.chars().count() < 45, "{}", notice.title);
            }
        }
    }

    #[test]
    fn several_new_models_make_one_notice() {
        let notice = several_new_models(&[
            ("a", Verdict::FullGpu),
            ("b", Verdict::CpuOnly),
            ("c", Verdict::TooLarge),
            ("d", Verdict::FullGpu),
            ("e", Verdict::FullGpu),
        ]);
        assert_eq!(notice.title, "5 new models: 4 fit");
        assert_eq!(notice.body, "Fitting: a, b, d and 1 more.");
        assert_eq!(
            several_new_models(&[("a", Verdict::TooLarge), ("b", Verdict::PartialGpu)]).title,
            "2 new models: none fits"
        );
    }

    #[test]
    fn a_digest_names_what_it_stands_for() {
        let notices =
            ["a", "b", "c", "d"].map(|title| Notice { topic: title.into(), title: title.into(), body: String::new() });
        let digest = digest(&notices);
        assert_eq!(digest.title, "4 notices in the last hour");
        assert_eq!(digest.body, "a, b, c and 1 more. Run fitwatch status for more.");
    }

    fn judgement(verdict: Verdict, spare: i64, available: u64) -> Judgement {
        Judgement {
            verdict,
            gpu_layers: 33,
            layers: 65,
            cpu_moe: 0,
            spare,
            binding: "NVIDIA GeForce RTX 4090".into(),
            pools: vec![PoolNeed {
                name: "NVIDIA GeForce RTX 4090".into(),
                need: Bytes(20_000_000_000),
                available: Bytes(available),
            }],
            caveat: None,
        }
    }
}
