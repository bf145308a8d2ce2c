use std::io::Write;
use std::time::{Duration, Instant};

use flate2::{Compression, write::GzEncoder};
use trailblazer::source::{Failure, Fetched, SourceError, fetch};

use super::{body, failure, get, settings, validators};
use lab::raw_http::{Act, Request, Server, answer, ok, redirect};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn document_is_fetched_with_our_user_agent() {
    let server = Server::start(|_, _| ok(b"{}"));
    let url = server.url("/ip-ranges.json");
    let fetched = get(&url).await.unwrap();
    assert_eq!(
        fetched,
        Fetched::Document {
            bytes: b"{}".to_vec(),
            url,
            redirected: None,
            validators: None
        }
    );
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("user-agent"), Some("trailblazer/test"));
    assert_eq!(seen[0].header("accept-encoding"), Some("gzip"));
    assert_eq!(seen[0].header("if-none-match"), None);
}

#[tokio::test]
async fn unchanged_document_is_answered_by_304() {
    const DATE: &str = "Sat, 21 Nov 2026 01:02:03 GMT";
    let server = Server::start(|_, request: &Request| {
        let current = request.header("if-none-match") == Some("\"v1\"")
            && request.header("if-modified-since") == Some(DATE);
        if current {
            answer("304 Not Modified", &["ETag: \"v1\""], b"")
        } else {
            let date = format!("Last-Modified: {DATE}");
            answer("200 OK", &["ETag: \"v1\"", &date], b"first")
        }
    });
    let url = server.url("/");
    let known = validators(get(&url).await.unwrap());
    let again = fetch(std::slice::from_ref(&url), &settings(), Some(&known))
        .await
        .unwrap();
    assert_eq!(again, Fetched::NotModified { url });
}

#[tokio::test]
async fn validators_are_sent_only_to_their_source() {
    let other = Server::start(|_, _| answer("200 OK", &["ETag: \"v1\""], b"other"));
    let first = Server::start(|_, _| answer("200 OK", &["ETag: \"v1\""], b"first"));
    let known = validators(get(&first.url("/")).await.unwrap());

    let fetched = fetch(&[other.url("/")], &settings(), Some(&known)).await;
    assert_eq!(body(fetched.unwrap()), b"other");
    assert_eq!(other.seen()[0].header("if-none-match"), None);

    // The redirect's new target is not trusted either.
    let to = other.url("/");
    let moved = Server::start(move |_, _| redirect(&to));
    let mut moved_known = known.clone();
    moved_known.url = moved.url("/");
    let fetched = fetch(&[moved.url("/")], &settings(), Some(&moved_known)).await;
    assert_eq!(body(fetched.unwrap()), b"other");
    assert_eq!(other.seen()[1].header("if-none-match"), None);
}

#[tokio::test]
async fn validators_survive_a_redirect() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/" => redirect("/here"),
        _ if request.header("if-none-match") == Some("\"v1\"") => {
            answer("304 Not Modified", &[], b"")
        }
        _ => answer("200 OK", &["ETag: \"v1\""], b"there"),
    });
    let url = server.url("/");
    let known = validators(get(&url).await.unwrap());
    assert_eq!(known.url, server.url("/here"));
    let again = fetch(std::slice::from_ref(&url), &settings(), Some(&known)).await;
    assert_eq!(again.unwrap(), Fetched::NotModified { url });
}

#[tokio::test]
async fn unrequested_304_is_an_error() {
    let server = Server::start(|_, _| answer("304 Not Modified", &[], b""));
    let failure = failure(get(&server.url("/")).await);
    assert!(matches!(failure.cause, Failure::UnaskedNotModified));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn gzip_is_decoded() {
    let document = b"{\"prefixes\": []} ".repeat(1000);
    let packed = gzip(&document);
    assert!(packed.len() < document.len() / 10);
    let server = Server::start(move |_, _| answer("200 OK", &["Content-Encoding: gzip"], &packed));
    assert_eq!(body(get(&server.url("/")).await.unwrap()), document);
}

#[tokio::test]
async fn gzip_bomb_stops_at_the_size_limit() {
    let packed = gzip(&vec![0; 64 << 20]);
    assert!(packed.len() < 100_000);
    let server = Server::start(move |_, _| answer("200 OK", &["Content-Encoding: gzip"], &packed));
    let failure = failure(get(&server.url("/")).await);
    let limit = 1 << 20;
    assert!(
        matches!(failure.cause, Failure::TooLarge { limit: at, announced: None } if at == limit),
        "{failure}"
    );
    assert_eq!(server.seen().len(), 1, "asking again would not help");
}

#[tokio::test]
async fn truncated_gzip_is_an_error() {
    let mut packed = gzip(&b"{\"prefixes\": []} ".repeat(1000));
    packed.truncate(packed.len() - 12);
    let server = Server::start(move |_, _| answer("200 OK", &["Content-Encoding: gzip"], &packed));
    let failure = failure(get(&server.url("/")).await);
    assert!(matches!(failure.cause, Failure::Broken(_)), "{failure}");
}

#[tokio::test]
async fn unrequested_encoding_is_an_error() {
    let server = Server::start(|_, _| answer("200 OK", &["Content-Encoding: br"], b"\x0b\x02"));
    let failure = failure(get(&server.url("/")).await);
    assert!(matches!(&failure.cause, Failure::Encoding(coding) if coding == "br"));
}

#[tokio::test]
async fn too_large_content_length_is_refused_before_the_body() {
    let server = Server::start(|_, _| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx";
        vec![Act::Send(head.into()), Act::Sleep(Duration::from_secs(3))]
    });
    let started = Instant::now();
    let failure = failure(get(&server.url("/")).await);
    assert!(
        failure.to_string().contains("99999999999 bytes announced"),
        "{failure}"
    );
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn body_without_length_stops_at_the_size_limit() {
    let server = Server::start(|_, _| {
        let mut acts = vec![Act::Send(b"HTTP/1.0 200 OK\r\n\r\n".to_vec())];
        acts.extend((0..40).map(|_| Act::Send(vec![b' '; 64 << 10])));
        acts
    });
    let failure = failure(get(&server.url("/")).await);
    assert!(
        matches!(
            failure.cause,
            Failure::TooLarge {
                announced: None,
                ..
            }
        ),
        "{failure}"
    );
}

#[tokio::test]
async fn body_of_exactly_the_size_limit_is_accepted() {
    let server = Server::start(|_, _| ok(&vec![b' '; 1 << 20]));
    assert_eq!(body(get(&server.url("/")).await.unwrap()).len(), 1 << 20);
}

#[tokio::test]
async fn truncated_body_is_an_error_and_retried() {
    let server = Server::start(|number, _| match number {
        2 => ok(b"whole"),
        _ => vec![Act::Send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"prefixes\"".to_vec(),
        )],
    });
    assert_eq!(body(get(&server.url("/")).await.unwrap()), b"whole");
    assert_eq!(server.seen().len(), 3);

    let server = Server::start(|_, _| {
        vec![Act::Send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n".to_vec(),
        )]
    });
    let failure = failure(get(&server.url("/")).await);
    assert!(matches!(failure.cause, Failure::Broken(_)), "{failure}");
    assert_eq!(failure.tries, 3);
}

#[tokio::test]
async fn dripping_body_ends_with_the_timeout() {
    let server = Server::start(|_, _| {
        let mut acts = vec![Act::Send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_vec(),
        )];
        for _ in 0..100 {
            acts.push(Act::Send(vec![b'x']));
            acts.push(Act::Sleep(Duration::from_millis(50)));
        }
        acts
    });
    let mut settings = settings();
    settings.timeout = Duration::from_millis(500);
    settings.retries = 1;
    let started = Instant::now();
    let failure = failure(fetch(&[server.url("/")], &settings, None).await);
    assert!(matches!(failure.cause, Failure::Timeout(_)), "{failure}");
    assert_eq!((failure.tries, server.seen().len()), (2, 2));
    let took = started.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(3),
        "{took:?}"
    );
}

#[tokio::test]
async fn stalled_answer_is_retried() {
    let server = Server::start(|number, _| match number {
        0 => vec![Act::Sleep(Duration::from_secs(3))],
        _ => ok(b"second"),
    });
    let mut settings = settings();
    settings.timeout = Duration::from_secs(1);
    let fetched = fetch(&[server.url("/")], &settings, None).await.unwrap();
    assert_eq!(body(fetched), b"second");
}

#[tokio::test]
async fn five_redirects_are_followed_but_not_six() {
    let hops = |last: usize| {
        Server::start(move |_, request| {
            let hop: usize = request.path[1..].parse().unwrap();
            if hop == last {
                ok(b"end")
            } else {
                redirect(&format!("/{}", hop + 1))
            }
        })
    };
    let five = hops(5);
    assert_eq!(body(get(&five.url("/0")).await.unwrap()), b"end");
    let six = hops(6);
    let failure = failure(get(&six.url("/0")).await);
    assert!(
        failure.to_string().contains("more than 5 times"),
        "{failure}"
    );
    assert_eq!(six.seen().len(), 6);
}

#[tokio::test]
async fn redirect_loop_is_named() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/a" => redirect("/b"),
        _ => redirect("/a"),
    });
    let failure = failure(get(&server.url("/a")).await);
    let text = failure.to_string();
    assert!(
        text.contains("in a loop, back to http://127.0.0.1"),
        "{text}"
    );
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn failure_after_a_redirect_names_both_urls() {
    let server = Server::start(|_, request| match request.path.as_str() {
        "/first" => redirect("/second"),
        "/second" => redirect("/last?key=secret"),
        _ => answer("404 Not Found", &[], b""),
    });
    let first = server.url("/first");
    let text = get(&first).await.unwrap_err().to_string();
    let both = format!("{first}, redirected to {}?…: ", server.url("/last"));
    assert!(text.starts_with(&both), "{text}");
    let text = get(&server.url("/last")).await.unwrap_err().to_string();
    assert!(!text.contains("redirected"), "{text}");
}

#[tokio::test]
async fn bytes_after_gzip_are_named_and_not_asked_for_again() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(b"{}").unwrap();
    let body = [&encoder.finish().unwrap()[..], b"rest"].concat();
    let server = Server::start(move |_, _| ok(&body));
    let text = failure(get(&server.url("/")).await).to_string();
    assert!(
        text.contains(": 4 bytes after the end of the gzip"),
        "{text}"
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn redirects_without_a_usable_target_are_errors() {
    for (location, says) in [
        (Some("file:///etc/passwd"), "scheme \"file\""),
        (Some("http://[broken"), "an invalid URL"),
        (None, "without a Location header"),
    ] {
        let server = Server::start(move |_, _| match location {
            Some(to) => redirect(to),
            None => answer("302 Found", &[], b""),
        });
        let text = failure(get(&server.url("/")).await).to_string();
        assert!(text.contains(says), "{text}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn retry_after_delays_the_retry() {
    for status in [
        "408 Request Timeout",
        "429 Too Many Requests",
        "503 Service Unavailable",
    ] {
        let server = Server::start(move |number, _| match number {
            0 => answer(status, &["Retry-After: 1"], b"busy"),
            _ => ok(b"then"),
        });
        assert_eq!(body(get(&server.url("/")).await.unwrap()), b"then");
        let seen = server.seen();
        assert_eq!(seen.len(), 2);
        assert!(seen[1].at - seen[0].at >= Duration::from_millis(999));
    }
}

#[tokio::test]
async fn retry_after_as_a_date_delays_the_retry() {
    let server = Server::start(|number, _| match number {
        0 => {
            // An HTTP date has whole seconds: two ahead means one to two seconds from now.
            let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
            let date = jiff::fmt::rfc2822::DateTimePrinter::new()
                .timestamp_to_rfc9110_string(&at)
                .unwrap();
            answer(
                "503 Service Unavailable",
                &[&format!("Retry-After: {date}")],
                b"",
            )
        }
        _ => ok(b"then"),
    });
    assert_eq!(body(get(&server.url("/")).await.unwrap()), b"then");
    let seen = server.seen();
    assert!(seen[1].at - seen[0].at >= Duration::from_millis(900));
}

#[tokio::test]
async fn long_retry_after_ends_the_retries() {
    let server =
        Server::start(|_, _| answer("503 Service Unavailable", &["Retry-After: 3600"], b""));
    let started = Instant::now();
    let failure = failure(get(&server.url("/")).await);
    assert!(
        failure.to_string().contains("no request within 60 min"),
        "{failure}"
    );
    assert_eq!(server.seen().len(), 1);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn server_errors_are_retried_and_client_errors_are_not() {
    for (status, tries) in [
        ("500 Internal Server Error", 3),
        ("502 Bad Gateway", 3),
        ("429 Too Many Requests", 3),
        ("404 Not Found", 1),
        ("403 Forbidden", 1),
        ("410 Gone", 1),
        ("204 No Content", 1),
        ("206 Partial Content", 1),
    ] {
        let server = Server::start(move |_, _| answer(status, &[], b""));
        let failure = failure(get(&server.url("/")).await);
        assert_eq!(server.seen().len(), tries, "{status}");
        assert!(failure.to_string().contains(&status[..3]), "{failure}");
    }
}

#[tokio::test]
async fn connection_reset_is_retried() {
    let server = Server::start(|number, _| match number {
        0 => vec![Act::Reset],
        1 => vec![
            Act::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec()),
            Act::Reset,
        ],
        _ => ok(b"third"),
    });
    assert_eq!(body(get(&server.url("/")).await.unwrap()), b"third");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn closed_port_is_a_named_error() {
    let gone = Server::start(|_, _| ok(b"")).url("/");
    let failure = failure(get(&gone).await);
    assert!(matches!(failure.cause, Failure::Connect(_)));
    assert!(
        failure.to_string().contains("Connection refused"),
        "{failure}"
    );
    assert_eq!(failure.tries, 3);
}

#[tokio::test]
async fn non_http_answer_is_an_error() {
    let server = Server::start(|_, _| vec![Act::Send(b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec())]);
    let failure = failure(get(&server.url("/")).await);
    assert!(matches!(failure.cause, Failure::Broken(_)), "{failure}");
}

#[tokio::test]
async fn empty_200_is_an_error() {
    let server = Server::start(|_, _| ok(b""));
    let failure = failure(get(&server.url("/")).await);
    assert!(failure.to_string().contains("empty document"), "{failure}");
}

#[tokio::test]
async fn too_short_content_length_cuts_the_body() {
    // Bytes behind the body are not part of the answer (RFC 9112, 6.3); the parser sees the cut.
    let server = Server::start(|_, _| {
        vec![Act::Send(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{\"prefixes\": []}".to_vec(),
        )]
    });
    assert_eq!(body(get(&server.url("/")).await.unwrap()), b"{\"pre");
}

#[tokio::test]
async fn first_answering_source_wins() {
    let broken = Server::start(|_, _| answer("404 Not Found", &[], b""));
    let good = Server::start(|_, _| ok(b"good"));
    let never = Server::start(|_, _| ok(b"never"));
    let urls = [broken.url("/"), good.url("/"), never.url("/")];
    let fetched = fetch(&urls, &settings(), None).await.unwrap();
    assert!(matches!(fetched, Fetched::Document { url, .. } if url == good.url("/")));
    assert!(never.seen().is_empty());

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a b.json");
    std::fs::write(&file, b"from the disk").unwrap();
    let urls = [
        broken.url("/"),
        format!("file://{}", dir.path().join("a%20b.json").display()),
    ];
    let fetched = fetch(&urls, &settings(), None).await.unwrap();
    assert_eq!(body(fetched), b"from the disk");
}

#[tokio::test]
async fn every_failure_is_reported_without_credentials() {
    let broken = Server::start(|_, _| answer("403 Forbidden", &[], b""));
    let with_password = broken
        .url("/x?token=hidden")
        .replace("://", "://me:hidden@");
    let urls = [with_password, "/nowhere/ranges.json".to_owned()];
    let error = fetch(&urls, &settings(), None).await.unwrap_err();
    let SourceError::Failed(all) = &error else {
        panic!("{error}");
    };
    assert_eq!(all.len(), 2);
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hidden"), "{text}");
    assert!(
        text.contains("none of 2 sources has a usable document") && text.contains("/nowhere/"),
        "{text}"
    );
    // The credentials are sent, though: base64 of me:hidden.
    assert_eq!(
        broken.seen()[0].header("authorization"),
        Some("Basic bWU6aGlkZGVu")
    );
}
