//! `settings.json` as text.

use super::*;

#[test]
fn a_whole_file_gives_what_is_on_the_white_list() {
    let (settings, notes) = parse_settings(&fixture("settings.json"));
    assert_eq!(settings.downloads_folder, Some(PathBuf::from("/data/llm/models")).filter(|path| path.is_absolute()));
    assert_eq!(settings.default_context, Some(DefaultContext::Tokens(8_192)));
    assert_eq!(settings.guardrail.as_deref(), Some("Strict"));
    assert!(cfg!(windows) || notes.is_empty(), "{notes:?}");
}

#[test]
fn what_is_blank_missing_or_of_the_wrong_type_is_left_out() {
    for folder in [json!(""), json!("  "), json!(null), json!(7), json!(["/models"]), json!("models"), json!("~/llm")] {
        let (settings, _) = parse_settings(&json!({ "downloadsFolder": folder }).to_string());
        assert_eq!(settings, AppSettings::default(), "{folder}");
    }
    assert_eq!(parse_settings("{}"), (AppSettings::default(), Vec::new()));
}

#[test]
fn what_is_not_understood_is_said_and_what_is_only_missing_is_not() {
    let text = json!({ "downloadsFolder": 7, "defaultContextLength": "long", "modelLoadingGuardrails": [] });
    assert_eq!(parse_settings(&text.to_string()).1.len(), 3);
    let text = json!({ "downloadsFolder": " ", "defaultContextLength": null });
    assert_eq!(parse_settings(&text.to_string()).1, Vec::<String>::new());
}

#[test]
fn the_default_context_may_be_a_string_and_max_carries_a_value() {
    let context =
        |value: Value| parse_settings(&json!({ "defaultContextLength": value }).to_string()).0.default_context;
    assert_eq!(context(json!({ "type": "custom", "value": "81920" })), Some(DefaultContext::Tokens(81_920)));
    assert_eq!(context(json!({ "type": "max", "value": 4096 })), Some(DefaultContext::Max));
    assert_eq!(context(json!({ "type": "custom", "value": 0 })), None);
    assert_eq!(context(json!({ "type": "custom" })), None);
    assert_eq!(context(json!(4096)), Some(DefaultContext::Tokens(4_096)));
}

#[test]
fn guardrails_are_named_as_lm_studio_names_them() {
    let mode =
        |mode: &str| parse_settings(&json!({ "modelLoadingGuardrails": { "mode": mode } }).to_string()).0.guardrail;
    let named: Vec<_> = ["off", "low", "medium", "high", "custom", "extreme"].map(mode).into_iter().flatten().collect();
    assert_eq!(named, ["OFF", "Relaxed", "Balanced", "Strict", "Custom", "extreme"]);
    assert_eq!(mode("hf_ABCDEFGHIJKLMNOPQRSTUVWXYZ"), None);
    assert_eq!(mode(""), None);
}

#[test]
fn broken_text_is_a_note_without_its_content() {
    for text in ["", "{", "\"hf_token\"", "{\"hfSearchToken\": hf_token", "[\"hf_token\"]", "null"] {
        let (settings, notes) = parse_settings(text);
        assert_eq!(settings, AppSettings::default());
        assert_eq!(notes.len(), 1, "{text}");
        assert!(!notes[0].contains("hf_token"), "{}", notes[0]);
    }
}
