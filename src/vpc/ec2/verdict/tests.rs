use super::super::request::{change, dry_run, list_entries};
use super::*;
use crate::vpc::calls::Call;
use crate::vpc::objects::ListId;

fn now() -> Timestamp {
    "2026-08-01T12:10:00Z".parse().unwrap()
}

fn read() -> Request {
    list_entries(&ListId::from("pl-1"), None)
}

fn deletion() -> Request {
    change(&Call::DeleteList {
        list: ListId::from("pl-1"),
    })
}

fn answer(status: u16, body: &str) -> Result<HttpAnswer, TransportError> {
    Ok(HttpAnswer {
        status,
        request_id: Some("header-id".to_owned()),
        date: Some("2026-08-01T12:00:00Z".parse().unwrap()),
        body: body.as_bytes().to_vec(),
    })
}

fn error(status: u16, code: &str) -> Result<HttpAnswer, TransportError> {
    let body = format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>m</Message></Error></Errors></Response>"
    );
    answer(status, &body)
}

fn failure(request: &Request, outcome: Result<HttpAnswer, TransportError>) -> Failure {
    judge(request, outcome, now(), |root| match root.name.as_str() {
        "Good" => Ok(()),
        other => Err(DecodeFault::Document(other.to_owned())),
    })
    .unwrap_err()
}

#[test]
fn usable_answer_is_decoded() {
    let judged = judge(&read(), answer(200, "<Good/>"), now(), |root| {
        Ok::<_, DecodeFault>(root.name.clone())
    });
    assert_eq!(judged.unwrap(), "Good");
}

#[test]
fn change_is_repeated_only_if_nothing_happened_or_ec2_asks_for_it() {
    let broken = || Err(TransportError::Broken("b".to_owned()));
    let unreachable = Err(TransportError::Unreachable("u".to_owned()));
    for (outcome, repeats_read, repeats_change) in [
        (broken(), true, false),
        (unreachable, true, true),
        (Err(TransportError::Setup("s".to_owned())), false, false),
        (error(503, "RequestLimitExceeded"), true, true),
        (error(500, "InternalError"), true, true),
        (error(503, "Unavailable"), true, true),
        (answer(503, "<html>"), true, true),
        (answer(429, ""), true, true),
        (answer(502, "<html><body>Bad Gateway"), true, false),
        (answer(200, "<GetManaged"), true, false),
        (answer(200, "<Other/>"), true, false),
        (answer(407, "proxy"), false, false),
        (error(400, "PrefixListVersionMismatch"), false, false),
        (error(412, "DryRunOperation"), false, false),
    ] {
        let shown = format!("{outcome:?}");
        let failure = failure(&read(), outcome);
        assert_eq!(failure.allows_retry(Effect::Read), repeats_read, "{shown}");
        assert_eq!(
            failure.allows_retry(Effect::Change),
            repeats_change,
            "{shown}"
        );
        assert_eq!(
            failure.allows_retry(Effect::Repeatable),
            repeats_read,
            "{shown}"
        );
    }
}

#[test]
fn outcome_of_an_unanswered_change_is_unknown() {
    for outcome in [
        Err(TransportError::Broken("b".to_owned())),
        error(500, "InternalError"),
        answer(200, "<half"),
        answer(504, ""),
    ] {
        let failed = failure(&deletion(), outcome);
        let error = failed.clone().into_final(Effect::Change, 1);
        assert_eq!(error.kind, ErrorKind::OutcomeUnknown);
        assert!(
            error.to_string().contains("may have carried out"),
            "{error}"
        );
        for effect in [Effect::Read, Effect::DryRun] {
            let error = failed.clone().into_final(effect, 3);
            assert_eq!(error.kind, ErrorKind::Unavailable);
            assert!(error.to_string().contains("the last of 3 tries"), "{error}");
        }
    }
    let refused = failure(&deletion(), error(503, "RequestLimitExceeded"));
    assert_eq!(
        refused.into_final(Effect::Change, 9).kind,
        ErrorKind::Throttled
    );
    let unreachable = Err(TransportError::Unreachable("u".to_owned()));
    let unreachable = failure(&deletion(), unreachable);
    assert_eq!(
        unreachable.into_final(Effect::Change, 9).kind,
        ErrorKind::Unavailable
    );
}

#[test]
fn unreadable_answers_are_told_with_status_and_begin() {
    let failed = failure(&read(), answer(502, "<html>Bad Gateway"));
    let text = failed.error.to_string();
    for part in ["502", "<html>Bad Gateway", "request header-id"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn clock_is_compared_with_the_answer_and_expired_credentials_are_renewed() {
    let skewed = failure(&read(), error(400, "RequestExpired"));
    assert_eq!(skewed.error.kind, ErrorKind::ClockSkew { ahead_s: 600 });
    assert_eq!(skewed.again, Again::Never);
    let expired = failure(&read(), error(400, "ExpiredToken"));
    assert_eq!(expired.again, Again::WithNewCredentials);
    assert!(!expired.allows_retry(Effect::Read));
}

#[test]
fn dry_run_that_was_carried_out_is_a_failure() {
    let request = dry_run(&Call::DeleteList {
        list: ListId::from("pl-1"),
    });
    let decode = |_: &Element| Err::<(), _>(DecodeFault::NoDryRun);
    let failed = judge(&request, answer(200, "<R/>"), now(), decode).unwrap_err();
    assert!(
        failed
            .error
            .to_string()
            .contains("although it was a dry run")
    );
    assert!(!failed.allows_retry(Effect::DryRun));
}
