//! A metadata service by AWS's description, and broken ones.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use trailblazer::facts::InstanceFacts;
use trailblazer::source::imds::{ImdsError, ImdsSettings, Wanted, ask};

use lab::raw_http::{Act, Request, Server, answer, ok, redirect};

const MAC: &str = "02:29:96:8f:6a:2d";
const ALL: Wanted = Wanted {
    instance_id: true,
    region: true,
    zone: true,
    vpc_cidrs: true,
    subnet_cidrs: true,
    public_addresses: true,
};

fn pages() -> BTreeMap<String, String> {
    let mac = format!("network/interfaces/macs/{MAC}");
    let second = "network/interfaces/macs/02:29:96:8f:6a:2e";
    [
        ("instance-id".to_owned(), "i-0123456789abcdef0"),
        ("placement/region".to_owned(), "us-east-1"),
        ("placement/availability-zone".to_owned(), "us-east-1a"),
        ("mac".to_owned(), MAC),
        (
            "network/interfaces/macs/".to_owned(),
            "02:29:96:8f:6a:2d/\n02:29:96:8f:6a:2e/",
        ),
        (
            format!("{mac}/vpc-ipv4-cidr-blocks"),
            "10.0.0.0/16\n100.64.0.0/16",
        ),
        (format!("{mac}/vpc-ipv6-cidr-blocks"), "2600:1f18:1::/56"),
        (format!("{mac}/subnet-ipv4-cidr-block"), "10.0.1.0/24"),
        (
            format!("{mac}/subnet-ipv6-cidr-blocks"),
            "2600:1f18:1:1::/64",
        ),
        (
            format!("{mac}/ipv4-associations/"),
            "198.51.100.7\n198.51.100.8",
        ),
        (format!("{mac}/ipv4-associations/198.51.100.7"), "10.0.1.20"),
        (format!("{mac}/ipv4-associations/198.51.100.8"), "10.0.1.21"),
        (format!("{second}/ipv4-associations/"), "198.51.100.9"),
        (
            format!("{second}/ipv4-associations/198.51.100.9"),
            "10.0.2.20",
        ),
    ]
    .into_iter()
    .map(|(path, body)| (path, body.to_owned()))
    .collect()
}

/// The real one's behaviour: a token for a PUT with a TTL, nothing without a token.
fn serve(pages: &BTreeMap<String, String>, request: &Request) -> Vec<Act> {
    if request.path == "/latest/api/token" {
        let ttl: Option<u32> = request
            .header("x-aws-ec2-metadata-token-ttl-seconds")
            .and_then(|ttl| ttl.parse().ok());
        return match (request.method.as_str(), ttl) {
            ("PUT", Some(1..=21600)) => ok(b"AQAEAtoken=="),
            ("PUT", _) => answer("400 Bad Request", &[], b""),
            _ => answer("405 Not Allowed", &[], b""),
        };
    }
    if request.header("x-aws-ec2-metadata-token") != Some("AQAEAtoken==") {
        return answer("401 Unauthorized", &[], b"");
    }
    let page = request
        .path
        .strip_prefix("/latest/meta-data/")
        .and_then(|path| pages.get(path));
    match page {
        Some(body) => ok(body.as_bytes()),
        None => answer("404 Not Found", &[], b"<html>not found</html>"),
    }
}

fn service(pages: BTreeMap<String, String>) -> Server {
    Server::start(move |_, request| serve(&pages, request))
}

fn at(server: &Server) -> ImdsSettings {
    ImdsSettings::new(Some(&server.url("")), None).unwrap()
}

async fn error(server: &Server, wanted: Wanted) -> ImdsError {
    ask(wanted, &at(server)).await.expect_err("an error")
}

#[tokio::test]
async fn all_wanted_facts_are_read() {
    let server = service(pages());
    let facts = ask(ALL, &at(&server)).await.unwrap();
    let net = |text: &str| text.parse().unwrap();
    let pair = |public: &str, private: &str| (public.parse().unwrap(), private.parse().unwrap());
    assert_eq!(
        facts,
        InstanceFacts {
            instance_id: Some("i-0123456789abcdef0".to_owned()),
            region: Some("us-east-1".into()),
            zone: Some("us-east-1a".to_owned()),
            mac: Some(MAC.to_owned()),
            vpc_cidrs: vec![
                net("10.0.0.0/16"),
                net("100.64.0.0/16"),
                net("2600:1f18:1::/56")
            ],
            subnet_cidrs: vec![net("10.0.1.0/24"), net("2600:1f18:1:1::/64")],
            public_addresses: [
                pair("198.51.100.7", "10.0.1.20"),
                pair("198.51.100.8", "10.0.1.21"),
                pair("198.51.100.9", "10.0.2.20"),
            ]
            .into(),
        }
    );
}

#[tokio::test]
async fn only_wanted_facts_are_read() {
    let server = service(pages());
    let region = Wanted {
        region: true,
        ..Wanted::default()
    };
    ask(region, &at(&server)).await.unwrap();
    let paths: Vec<String> = server
        .seen()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(
        paths,
        ["/latest/api/token", "/latest/meta-data/placement/region"]
    );

    assert_eq!(
        ask(Wanted::default(), &at(&server)).await.unwrap(),
        InstanceFacts::default()
    );
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn missing_ipv6_and_public_addresses_are_valid_answers() {
    let mut pages = pages();
    pages.retain(|path, _| !path.contains("ipv6") && !path.contains("associations"));
    let facts = ask(ALL, &at(&service(pages))).await.unwrap();
    assert_eq!(facts.vpc_cidrs.len(), 2);
    assert_eq!(facts.subnet_cidrs.len(), 1);
    assert!(facts.public_addresses.is_empty());
}

#[tokio::test]
async fn missing_mandatory_fact_is_an_error() {
    for (missing, wanted) in [
        (
            "placement",
            Wanted {
                region: true,
                ..Wanted::default()
            },
        ),
        (
            "instance-id",
            Wanted {
                instance_id: true,
                ..Wanted::default()
            },
        ),
        (
            "mac",
            Wanted {
                vpc_cidrs: true,
                ..Wanted::default()
            },
        ),
        (
            "vpc-",
            Wanted {
                vpc_cidrs: true,
                ..Wanted::default()
            },
        ),
        (
            "subnet-",
            Wanted {
                subnet_cidrs: true,
                ..Wanted::default()
            },
        ),
        (
            "network",
            Wanted {
                public_addresses: true,
                ..Wanted::default()
            },
        ),
        (
            "associations/198.51.100.8",
            Wanted {
                public_addresses: true,
                ..Wanted::default()
            },
        ),
    ] {
        let mut pages = pages();
        pages.retain(|path, _| !path.contains(missing) || (missing == "mac" && path != "mac"));
        let error = error(&service(pages), wanted).await;
        let text = error.to_string();
        assert!(
            matches!(error, ImdsError::Status { .. }),
            "{missing}: {text}"
        );
        assert!(text.contains(missing), "{missing}: {text}");
    }
}

#[tokio::test]
async fn service_without_version_2_is_an_error() {
    for status in ["404 Not Found", "405 Method Not Allowed", "403 Forbidden"] {
        let server = Server::start(move |_, request| match request.method.as_str() {
            "PUT" => answer(status, &[], b""),
            _ => ok(b"us-east-1"),
        });
        let error = error(&server, ALL).await;
        assert!(matches!(error, ImdsError::NoToken { .. }), "{error}");
        assert!(error.to_string().contains(&status[..3]), "{error}");
        assert!(server.seen().iter().all(|request| request.method == "PUT"));
    }
}

#[tokio::test]
async fn slow_service_ends_with_the_time_budget() {
    let pages = pages();
    let server = Server::start(move |_, request| {
        let mut acts = vec![Act::Sleep(Duration::from_millis(180))];
        acts.extend(serve(&pages, request));
        acts
    });
    let started = Instant::now();
    let error = error(&server, ALL).await;
    let took = started.elapsed();
    assert!(matches!(error, ImdsError::Slow { .. }), "{error}");
    assert!(server.seen().len() > 2, "it was slow, not dead");
    assert!(
        took >= Duration::from_millis(990) && took < Duration::from_millis(1500),
        "{took:?}"
    );
}

#[tokio::test]
async fn silent_service_ends_with_the_time_budget() {
    let server = Server::start(|_, _| vec![Act::Sleep(Duration::from_secs(3))]);
    let started = Instant::now();
    let error = error(&server, ALL).await;
    assert!(matches!(error, ImdsError::NoAnswer(_)), "{error}");
    assert!(started.elapsed() < Duration::from_millis(1500));
}

#[tokio::test]
async fn second_endpoint_replaces_a_dead_or_silent_first_one() {
    let pages = pages();
    let second = Server::start_at("[::1]:0", move |_, request| serve(&pages, request));
    let silent = Server::start(|_, _| vec![Act::Sleep(Duration::from_secs(3))]);
    let dead = Server::start(|_, _| ok(b"")).url("");
    for first in [dead, silent.url("")] {
        let mut settings = ImdsSettings::new(Some(&first), None).unwrap();
        settings.endpoints.extend(at(&second).endpoints);
        let started = Instant::now();
        let facts = ask(ALL, &settings).await.unwrap();
        assert_eq!(facts.region, Some("us-east-1".into()));
        assert!(started.elapsed() < Duration::from_millis(1000));
    }
}

#[tokio::test]
async fn invalid_answer_is_named_and_quoted() {
    const PORTAL: &str = "<html><title>Please log in</title></html>";
    for (path, answer, wanted) in [
        (
            "placement/region".to_owned(),
            PORTAL,
            Wanted {
                region: true,
                ..Wanted::default()
            },
        ),
        (
            "placement/region".to_owned(),
            "",
            Wanted {
                region: true,
                ..Wanted::default()
            },
        ),
        (
            "placement/availability-zone".to_owned(),
            PORTAL,
            Wanted {
                zone: true,
                ..Wanted::default()
            },
        ),
        (
            "instance-id".to_owned(),
            "localhost",
            Wanted {
                instance_id: true,
                ..Wanted::default()
            },
        ),
        (
            "mac".to_owned(),
            "../../x",
            Wanted {
                vpc_cidrs: true,
                ..Wanted::default()
            },
        ),
        (
            format!("network/interfaces/macs/{MAC}/vpc-ipv4-cidr-blocks"),
            "10.0.0.0/16\nnone",
            Wanted {
                vpc_cidrs: true,
                ..Wanted::default()
            },
        ),
        (
            format!("network/interfaces/macs/{MAC}/vpc-ipv6-cidr-blocks"),
            "",
            Wanted {
                vpc_cidrs: true,
                ..Wanted::default()
            },
        ),
        (
            format!("network/interfaces/macs/{MAC}/ipv4-associations/198.51.100.7"),
            "10.0.1.20\n10.0.1.21",
            Wanted {
                public_addresses: true,
                ..Wanted::default()
            },
        ),
    ] {
        let mut pages = pages();
        pages.insert(path.clone(), answer.to_owned());
        let error = error(&service(pages), wanted).await;
        let text = error.to_string();
        assert!(matches!(error, ImdsError::Garbage { .. }), "{path}: {text}");
        assert!(text.contains(&path), "{text}");
        assert!(text.contains(&format!("{answer:?}")), "{text}");
    }
}

/// Traffic to the VPC passes our tables by, so a false VPC would open the egress path.
#[tokio::test]
async fn networks_that_no_vpc_has_are_refused() {
    let mac = format!("network/interfaces/macs/{MAC}");
    for (path, text) in [
        ("vpc-ipv4-cidr-blocks", "0.0.0.0/0"),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/16\n52.0.0.0/8"),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/15"),
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/29"),
        ("vpc-ipv4-cidr-blocks", "10.0.0.1/16"),
        ("vpc-ipv4-cidr-blocks", "127.0.0.0/16"),
        ("vpc-ipv4-cidr-blocks", "169.254.0.0/16"),
        ("vpc-ipv4-cidr-blocks", "224.0.0.0/16"),
        ("vpc-ipv4-cidr-blocks", "0.0.0.0/16"),
        ("vpc-ipv6-cidr-blocks", "::/0"),
        ("vpc-ipv6-cidr-blocks", "2000::/3"),
        ("vpc-ipv6-cidr-blocks", "2600:1f18::/43"),
        ("vpc-ipv6-cidr-blocks", "2600:1f18:1:1::/64"),
        ("vpc-ipv6-cidr-blocks", "fe80::/56"),
        ("subnet-ipv4-cidr-block", "10.0.0.0/8"),
        ("subnet-ipv6-cidr-blocks", "2600:1f18:1:1::/65"),
    ] {
        let mut pages = pages();
        pages.insert(format!("{mac}/{path}"), text.to_owned());
        let error = error(&service(pages), ALL).await;
        assert!(
            matches!(error, ImdsError::Garbage { .. }),
            "{text}: {error}"
        );
    }
    for (path, text) in [
        ("vpc-ipv4-cidr-blocks", "10.0.0.0/28\n52.95.0.0/16"),
        ("vpc-ipv6-cidr-blocks", "2600:1f18::/44\nfd00:1::/60"),
        ("subnet-ipv6-cidr-blocks", "2600:1f18:1:1::/64"),
    ] {
        let mut pages = pages();
        pages.insert(format!("{mac}/{path}"), text.to_owned());
        let answer = ask(ALL, &at(&service(pages))).await;
        assert!(answer.is_ok(), "{text}: {answer:?}");
    }
}

#[tokio::test]
async fn captive_portal_is_not_a_metadata_service() {
    let html = Server::start(|_, _| ok(b"<html>log in</html>\n<p>please</p>"));
    let text = error(&html, ALL).await.to_string();
    assert!(
        text.contains("latest/api/token") && text.contains("<html>log in"),
        "{text}"
    );

    let to = html.url("/login");
    let redirecting = Server::start(move |_, _| redirect(&to));
    let error = error(&redirecting, ALL).await;
    assert!(matches!(error, ImdsError::NoToken { .. }), "{error}");
    assert_eq!(html.seen().len(), 1, "redirects are not followed");
}

#[tokio::test]
async fn endless_answer_is_cut() {
    let server = Server::start(|_, _| {
        let mut acts = vec![Act::Send(b"HTTP/1.0 200 OK\r\n\r\n".to_vec())];
        acts.extend((0..64).map(|_| Act::Send(vec![b'A'; 64 << 10])));
        acts
    });
    let error = error(&server, ALL).await;
    assert!(matches!(error, ImdsError::Garbage { .. }), "{error}");
}

#[test]
fn aws_variables_choose_the_endpoint() {
    let endpoints = |endpoint, mode| {
        ImdsSettings::new(endpoint, mode).map(|settings| {
            settings
                .endpoints
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        })
    };
    let (v4, v6) = ("http://169.254.169.254/", "http://[fd00:ec2::254]/");
    assert_eq!(endpoints(None, None).unwrap(), [v4, v6]);
    assert_eq!(endpoints(Some(""), Some(" ")).unwrap(), [v4, v6]);
    assert_eq!(endpoints(None, Some("IPv4")).unwrap(), [v4]);
    assert_eq!(endpoints(None, Some("ipv6")).unwrap(), [v6]);
    assert_eq!(
        endpoints(Some("http://10.0.0.1:1338/proxy"), Some("IPv6")).unwrap(),
        ["http://10.0.0.1:1338/proxy/"]
    );
    for (endpoint, mode) in [
        (Some("169.254.169.254"), None),
        (Some("https://169.254.169.254"), None),
        (None, Some("dual")),
    ] {
        let text = endpoints(endpoint, mode).unwrap_err().to_string();
        assert!(text.contains("AWS_EC2_METADATA_SERVICE_ENDPOINT"), "{text}");
    }
}
