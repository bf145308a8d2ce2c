//! Variations that Amazon or a mirror publishes, and documents that are none.

use super::*;

const SMALL: &str = r#"{
  "syncToken": "1700000000",
  "createDate": "2023-11-14-22-13-20",
  "prefixes": [
    {"ip_prefix": "3.5.0.0/19", "region": "us-east-1", "service": "S3", "network_border_group": "us-east-1"}
  ],
  "ipv6_prefixes": [
    {"service": "S3", "new_field": [1, {"a": null}], "region": "us-east-1", "ipv6_prefix": "2600:1fa0:8000::/39"}
  ],
  "unknown": {"deep": [true]}
}"#;

fn error(text: &str) -> DocumentError {
    Document::parse(text.as_bytes()).unwrap_err()
}

#[test]
fn unescaped_text_is_borrowed_from_the_bytes() {
    let document = Document::parse(SMALL.as_bytes()).unwrap();
    assert_eq!(document.sync_token, SyncToken(1_700_000_000));
    assert_eq!(document.create_date, "2023-11-14-22-13-20");
    assert_eq!(document.rows.len(), 2);
    let [v4, v6] = &document.rows[..] else {
        panic!()
    };
    assert_eq!((v4.family, v6.family), (Family::Ipv4, Family::Ipv6));
    assert_eq!(v6.prefix, "2600:1fa0:8000::/39");
    assert_eq!(v6.border_group, None);
    assert_eq!(v4.border_group.as_deref(), Some("us-east-1"));
    for text in [&v4.prefix, &v4.region, v4.border_group.as_ref().unwrap()] {
        assert!(matches!(text, Cow::Borrowed(_)), "{text} was copied");
    }
}

#[test]
fn escaped_strings_are_unescaped() {
    let text = SMALL.replace("3.5.0.0/19", r"3.5.0.0\/19");
    let document = Document::parse(text.as_bytes()).unwrap();
    assert_eq!(document.rows[0].prefix, "3.5.0.0/19");
    let text = SMALL.replace("\"S3\", \"network", "\"\\u00533\", \"network");
    assert_ne!(text, SMALL);
    let document = Document::parse(text.as_bytes()).unwrap();
    assert_eq!(document.rows[0].service, "S3");
}

#[test]
fn ipv6_prefixes_and_create_date_may_be_missing() {
    let document = Document::parse(br#"{"prefixes": [], "syncToken": 12}"#).unwrap();
    assert_eq!(document.sync_token, SyncToken(12));
    assert_eq!(document.create_date, "");
    assert!(document.rows.is_empty());
}

#[test]
fn each_malformed_document_gets_its_own_error() {
    assert_eq!(error(""), DocumentError::Empty);
    assert_eq!(error(" \n\t"), DocumentError::Empty);
    assert_eq!(
        Document::parse(b"{\"a\": \"\xff\"}"),
        Err(DocumentError::NotUtf8 { offset: 7 })
    );
    for page in [
        "<html>",
        "\n<!DOCTYPE html><p>Sign in</p>",
        "\u{feff}<?xml?>",
    ] {
        assert_eq!(error(page), DocumentError::Html);
    }
    assert_eq!(
        Document::parse(b"\xff\xfe{\0}\0"),
        Err(DocumentError::Utf16)
    );
    assert!(matches!(error("OK"), DocumentError::NotJson { .. }));
    assert!(matches!(
        error("{\n\"prefixes\": nope}"),
        DocumentError::NotJson { line: 2, .. }
    ));
    assert!(matches!(error("[]"), DocumentError::Shape { .. }));
    assert!(matches!(error("null"), DocumentError::Shape { .. }));
    // serde's derive alone would accept both arrays as lists of fields.
    for arrays in [
        r#"["1", "", [], []]"#,
        r#"{"syncToken": "1", "prefixes": [["3.5.0.0/19", "us-east-1", "S3", null]]}"#,
    ] {
        assert!(matches!(error(arrays), DocumentError::Shape { .. }));
    }
    assert_eq!(error(r#"{"syncToken": "1"}"#), DocumentError::NoPrefixes);
    assert_eq!(error(r#"{"prefixes": []}"#), DocumentError::NoToken);
    for bad in ["", "+1", "-1", "1.5", "now", "99999999999999999999999"] {
        let text = format!(r#"{{"prefixes": [], "syncToken": "{bad}"}}"#);
        assert_eq!(error(&text), DocumentError::BadToken(bad.to_owned()));
    }
    let escape = error(r#"{"prefixes": [], "syncToken": "1\u001b[2J"}"#).to_string();
    assert!(escape.contains(r#": "1\u{1b}[2J";"#), "{escape}");
    for bad in ["1.5", "true", "-4"] {
        let text = format!(r#"{{"prefixes": [], "syncToken": {bad}}}"#);
        assert!(matches!(error(&text), DocumentError::Shape { .. }), "{bad}");
    }
    assert!(matches!(
        error(r#"{"syncToken": "1", "prefixes": {"a": 1}}"#),
        DocumentError::Shape { .. }
    ));
}

#[test]
fn nulls_and_other_types_in_optional_fields_are_absent_values() {
    let document = |create_date: &str, list: &str| {
        let text = format!(
            r#"{{"syncToken": "1", "createDate": {create_date}, "ipv6_prefixes": {list},
                "prefixes": [null, {{"ip_prefix": "3.5.0.0/19", "ipv6_prefix": null, "region": "r",
                "service": "S3", "network_border_group": null}},
                {{"ip_prefix": [1, {{}}], "region": 5, "service": true}}]}}"#
        );
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.create_date, "");
        assert_eq!(document.rows[0].prefix, "3.5.0.0/19");
        assert_eq!(document.rows[0].border_group, None);
        let bad = &document.rows[1];
        assert_eq!((&*bad.prefix, &*bad.region, &*bad.service), ("", "", ""));
        document.rows.len()
    };
    assert_eq!(document("null", "null"), 2);
    assert_eq!(document("[1]", "[]"), 2);
    assert_eq!(document("-1.5e3", r#"[{"ip_prefix": "2600::/12"}]"#), 3);
    let long = format!("\"{}\"", "x".repeat(30_000_000));
    assert_eq!(document(&long, "[null, null]"), 2);
}

#[test]
fn byte_order_mark_is_ignored_at_the_start_only() {
    let text = format!("\u{feff}{SMALL}");
    let with_mark = Document::parse(text.as_bytes()).unwrap();
    assert_eq!(with_mark, Document::parse(SMALL.as_bytes()).unwrap());
    assert!(matches!(
        error(&format!("\u{feff}{text}")),
        DocumentError::NotJson { .. }
    ));
}

#[test]
fn quotations_in_errors_are_short() {
    let long = "9".repeat(1_000_000);
    let texts = [
        format!(r#"{{"syncToken": "{long}", "prefixes": []}}"#),
        format!(r#"{{"syncToken": "1", "prefixes": "{long}"}}"#),
        format!(r#"{{"syncToken": {long}, "prefixes": []}}"#),
    ];
    for text in texts {
        let message = error(&text).to_string();
        assert!(message.len() < 500, "{} bytes", message.len());
    }
}

#[test]
fn every_truncation_is_reported_as_truncated() {
    for end in 1..SMALL.len() {
        let found = error(&SMALL[..end]);
        assert!(
            matches!(found, DocumentError::Truncated { .. }),
            "cut at {end}: {found}"
        );
    }
}

#[test]
fn text_after_the_end_is_an_error_with_its_place() {
    assert_eq!(
        error(&format!("{SMALL}\n}}")),
        DocumentError::TrailingGarbage {
            line: 12,
            column: 1
        }
    );
    assert!(Document::parse(format!("{SMALL}\n\n").as_bytes()).is_ok());
    assert!(matches!(
        error(&format!("{SMALL}{SMALL}")),
        DocumentError::TrailingGarbage { .. }
    ));
}

#[test]
fn messages_name_the_place_once() {
    let message = error("{\n\"prefixes\": nope}").to_string();
    assert!(message.contains("line 2, column"), "{message}");
    assert_eq!(message.matches("line").count(), 1, "{message}");
}
