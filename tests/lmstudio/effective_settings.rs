//! From what is saved to the settings of a load.

use super::*;

#[test]
fn nothing_saved_means_lm_studios_defaults_and_says_so() {
    let found = settings_for(&model(32), None, &AppSettings::default());
    assert_eq!((&found.settings, found.basis), (&Settings::default(), SettingsBasis::Defaults));
    assert_eq!(found.assumptions.len(), 1);
    assert!(found.assumptions[0].starts_with("LM Studio's defaults: context 4096, batch 512"), "{found:?}");
}

#[test]
fn the_default_context_never_exceeds_the_trained_one() {
    let context = |default: Option<DefaultContext>, trained: u32| {
        let structure = Structure { context_train: trained, ..model(32) };
        let app = AppSettings { default_context: default, ..AppSettings::default() };
        settings_for(&structure, None, &app).settings.context
    };
    assert_eq!(context(Some(DefaultContext::Tokens(8_192)), 131_072), 8_192);
    assert_eq!(context(Some(DefaultContext::Tokens(8_192)), 2_048), 2_048);
    assert_eq!(context(Some(DefaultContext::Max), 131_072), 131_072);
    assert_eq!(context(None, 2_048), 2_048);
    for unknown in [Some(DefaultContext::Max), None] {
        assert_eq!(context(unknown, 0), 4_096, "a model that does not say what it was trained for");
    }
}

#[test]
fn saved_settings_win_and_the_rest_is_said_to_be_assumed() {
    let saved = parse_model_config(&fixture("per-model-config.gguf.json")).unwrap();
    let found = settings_for(&model(64), Some(&saved), &AppSettings::default());
    assert_eq!(found.basis, SettingsBasis::Saved);
    let expected = Settings {
        context: 16_384,
        parallel: 1,
        cache_type_k: CacheType::Q8_0,
        cache_type_v: CacheType::Q8_0,
        flash_attention: FlashAttention::On,
        // As seen on the command line of an engine that LM Studio started: half of 64 layers.
        gpu_layers: GpuLayers::Count(33),
        cpu_moe: 16,
        ..Settings::default()
    };
    assert_eq!(found.settings, expected);
    assert!(!found.assumptions.iter().any(|text| text.contains("defaults")), "{:?}", found.assumptions);
    assert!(found.assumptions.iter().any(|text| text.contains("spreads this model")), "{:?}", found.assumptions);

    let saved = LoadSettings { context_length: Some(1_000), ..LoadSettings::default() };
    let found = settings_for(&model(64), Some(&saved), &AppSettings::default());
    assert_eq!(found.settings.context, 1_000);
    assert!(found.assumptions[0].starts_with("LM Studio's defaults for what is not saved: batch 512"), "{found:?}");
}

#[test]
fn a_ratio_becomes_layers() {
    let layers = |ratio: f64, blocks: u32| {
        let saved = LoadSettings { offload_ratio: Some(ratio), ..LoadSettings::default() };
        settings_for(&model(blocks), Some(&saved), &AppSettings::default()).settings.gpu_layers
    };
    assert_eq!(layers(1.0, 32), GpuLayers::All);
    assert_eq!(layers(0.0, 32), GpuLayers::Count(0));
    assert_eq!(layers(0.5, 32), GpuLayers::Count(17));
    assert_eq!(layers(0.99, 32), GpuLayers::All);
    assert_eq!(layers(0.01, 32), GpuLayers::Count(0));
    assert_eq!(layers(1.0, u32::MAX), GpuLayers::All);
}

#[test]
fn the_physical_batch_is_never_larger_than_the_logical_one() {
    let saved = LoadSettings { batch: Some(128), ..LoadSettings::default() };
    let settings = settings_for(&model(32), Some(&saved), &AppSettings::default()).settings;
    assert_eq!((settings.batch, settings.ubatch), (128, 128));
    let saved = LoadSettings { batch: Some(2_048), ..LoadSettings::default() };
    let settings = settings_for(&model(32), Some(&saved), &AppSettings::default()).settings;
    assert_eq!((settings.batch, settings.ubatch), (2_048, 512));
}

#[test]
fn an_embedding_model_has_its_own_defaults() {
    let app = AppSettings { default_context: Some(DefaultContext::Tokens(65_536)), ..AppSettings::default() };
    let structure = Structure { kind: Kind::Embedding, context_train: 8_192, ..model(12) };
    let settings = settings_for(&structure, None, &app).settings;
    assert_eq!((settings.context, settings.parallel, settings.embeddings), (2_048, 1, true));
    let short = Structure { context_train: 512, ..structure };
    assert_eq!(settings_for(&short, None, &app).settings.context, 512);
}

#[test]
fn what_makes_the_bill_a_guess_is_said() {
    let warns = |saved: LoadSettings, word: &str| {
        let found = settings_for(&model(32), Some(&saved), &AppSettings::default());
        assert!(found.assumptions.iter().any(|text| text.contains(word)), "{word}: {:?}", found.assumptions);
    };
    warns(LoadSettings { arguments_override: true, ..LoadSettings::default() }, "raw engine arguments");
    warns(LoadSettings { draft_model: true, ..LoadSettings::default() }, "draft model");
    warns(LoadSettings { auto_fit: Some(true), ..LoadSettings::default() }, "fits context and layers");
    let quantised =
        LoadSettings { cache_type_v: Some(CacheType::Q8_0), flash_attention: Some(false), ..LoadSettings::default() };
    warns(quantised, "needs flash attention");
}

#[test]
fn a_saved_file_that_says_nothing_means_defaults() {
    let found = settings_for(&model(32), Some(&LoadSettings::default()), &AppSettings::default());
    assert_eq!(found.basis, SettingsBasis::Defaults);
}

fn model(blocks: u32) -> Structure {
    structure_of(blocks)
}
