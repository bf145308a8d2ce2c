use super::super::xml::parse;
use super::*;

const CALL: &str = "ModifyManagedPrefixList";

fn answer(code: &str, message: &str) -> ErrorAnswer {
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
         <Message>{message}</Message></Error></Errors><RequestID>ea966190-EXAMPLE</RequestID></Response>"
    );
    ErrorAnswer::read(&parse(document.as_bytes()).unwrap()).unwrap()
}

fn kind(code: &str) -> ErrorKind {
    answer(code, "m").kind(CALL, Some(1))
}

#[test]
fn codes_have_the_class_of_the_reaction() {
    for (class, codes) in [
        (
            ErrorKind::VersionMismatch,
            &["PrefixListVersionMismatch"][..],
        ),
        (ErrorKind::IncorrectState, &["IncorrectState"]),
        (
            ErrorKind::InProgress,
            &["ConcurrentMutationLimitExceeded", "ConcurrentTagAccess"],
        ),
        (
            ErrorKind::Throttled,
            &[
                "RequestLimitExceeded",
                "Client.RequestLimitExceeded",
                "Throttling",
                "ThrottlingException",
                "EC2ThrottledException",
            ],
        ),
        (
            ErrorKind::Unavailable,
            &[
                "InternalError",
                "Server.InternalError",
                "Unavailable",
                "ServiceUnavailable",
            ],
        ),
        (
            ErrorKind::NotFound,
            &[
                "InvalidPrefixListID.NotFound",
                "InvalidRouteTableID.NotFound",
                "InvalidRouteTableId.NotFound",
                "InvalidRoute.NotFound",
                "InvalidInternetGatewayID.NotFound",
            ],
        ),
        (
            ErrorKind::Quota,
            &[
                "RouteLimitExceeded",
                "PrefixListMaxEntriesExceeded",
                "TagLimitExceeded",
            ],
        ),
        (ErrorKind::AlreadyExists, &["RouteAlreadyExists"]),
        (ErrorKind::Expired, &["RequestExpired", "ExpiredToken"]),
        (
            ErrorKind::Credentials,
            &[
                "AuthFailure",
                "InvalidClientTokenId",
                "SignatureDoesNotMatch",
            ],
        ),
        (ErrorKind::WrongRegion, &["OptInRequired"]),
        (
            ErrorKind::Other,
            &[
                "InvalidParameterValue",
                "InvalidPrefixListModification",
                "DryRunOperation",
            ],
        ),
    ] {
        for code in codes {
            assert_eq!(kind(code), class, "{code}");
        }
    }
    let going_on = "The request cannot be completed while the prefix list (pl-1) is in the current state (modify-in-progress).";
    let busy = answer("IncorrectState", going_on);
    assert_eq!(busy.kind(CALL, None), ErrorKind::InProgress);
}

#[test]
fn missing_permission_is_named_with_the_statement_that_grants_it() {
    let refusal = answer(
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/agent/i-1 \
         is not authorized to perform: ec2:CreateTags on resource: arn:aws:ec2:us-east-1:123456789012:prefix-list/* \
         because no identity-based policy allows the ec2:CreateTags action. \
         Encoded authorization failure message: 4GIOHlTkIaWHQD0Q0m6XSnuUMCm",
    );
    let error = refusal.into_error("CreateManagedPrefixList", None);
    assert_eq!(
        error.kind,
        ErrorKind::Denied {
            action: "ec2:CreateTags".into(),
            grant: r#"{"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": "arn:aws:ec2:us-east-1:123456789012:prefix-list/*"}"#.into(),
        }
    );
    let text = error.to_string();
    for part in [
        "CreateManagedPrefixList: ",
        r#""Action": "ec2:CreateTags""#,
        "code UnauthorizedOperation",
        "request ea966190-EXAMPLE",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(
        !text.contains("4GIOHl") && !text.contains("Encoded"),
        "{text}"
    );

    let bare = answer(
        "UnauthorizedOperation",
        "You are not authorized to perform this operation.",
    );
    let ErrorKind::Denied { action, grant } = bare.kind(CALL, None) else {
        panic!("another class");
    };
    assert_eq!(&*action, "ec2:ModifyManagedPrefixList");
    assert!(grant.ends_with(r#""Resource": "*"}"#), "{grant}");

    let denial = answer(
        "UnauthorizedOperation",
        "User: u is not authorized to perform: ec2:DeleteRoute on resource: arn:x with an explicit deny in a service control policy",
    );
    let text = denial.into_error("DeleteRoute", None).to_string();
    assert!(text.contains("denies ec2:DeleteRoute explicitly"), "{text}");
}

#[test]
fn wrong_clock_is_told_with_its_difference() {
    for code in ["RequestExpired", "SignatureDoesNotMatch", "AuthFailure"] {
        let error = answer(code, "m").into_error(CALL, Some(-603));
        assert_eq!(error.kind, ErrorKind::ClockSkew { ahead_s: -603 });
        let text = error.to_string();
        assert!(text.contains("is 10 min behind EC2's clock"), "{text}");
    }
    let ahead = answer("RequestExpired", "m").into_error(CALL, Some(7_300));
    assert!(ahead.to_string().contains("2 h ahead of"), "{ahead}");
    let near = answer("RequestExpired", "m").kind(CALL, Some(60));
    assert_eq!(near, ErrorKind::Expired);
}

#[test]
fn signature_of_another_region_is_no_wrong_key() {
    let refusal = answer(
        "SignatureDoesNotMatch",
        "Credential should be scoped to a valid region, not 'eu-west-9'.",
    );
    assert_eq!(refusal.kind(CALL, Some(0)), ErrorKind::WrongRegion);
}

#[test]
fn canonical_request_with_the_session_token_is_not_repeated() {
    let refusal = answer(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match.\n\nThe Canonical String for this request should have been\n'POST\n/\n\nx-amz-security-token:GEHEIM'",
    );
    let error = refusal.into_error(CALL, Some(0));
    assert!(
        !format!("{error} {error:?}").contains("GEHEIM"),
        "{error:?}"
    );
    assert!(error.to_string().contains("does not match"), "{error}");
}

#[test]
fn messages_of_strangers_are_cut_and_escaped() {
    let refusal = answer("Odd", &format!("a\u{85}b{}", "x".repeat(5_000)));
    let text = refusal.into_error(CALL, None).to_string();
    assert!(text.chars().count() < 600, "{}", text.len());
    assert!(!text.contains('\u{85}'));
    let silent = answer("Odd", "").into_error(CALL, None).to_string();
    assert!(silent.contains("without a reason"), "{silent}");
}

#[test]
fn other_documents_are_no_errors() {
    for document in [
        "<R/>",
        "<Response/>",
        "<Response><Errors/></Response>",
        "<ErrorResponse/>",
    ] {
        let root = parse(document.as_bytes()).unwrap();
        assert_eq!(ErrorAnswer::read(&root), None, "{document}");
    }
    let nested =
        b"<ErrorResponse><Errors><Error><Code>AuthFailure</Code></Error></Errors></ErrorResponse>";
    let read = ErrorAnswer::read(&parse(nested).unwrap()).unwrap();
    assert_eq!(
        (read.code.as_str(), read.message.as_str()),
        ("AuthFailure", "")
    );
    let other = b"<ErrorResponse><Error><Code>Throttling</Code><Message>m</Message></Error><RequestId>r</RequestId></ErrorResponse>";
    let read = ErrorAnswer::read(&parse(other).unwrap()).unwrap();
    assert_eq!(
        (read.code.as_str(), read.request_id.as_deref()),
        ("Throttling", Some("r"))
    );
}
