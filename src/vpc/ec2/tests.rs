use std::collections::VecDeque;

use super::*;
use crate::types::{Family, Region};
use crate::vpc::objects::{RouteDestination, RouteTableId, RouteTarget, Tags};

/// The next answer of the double.
enum Next {
    Answer(u16, String),
    Fail(TransportError),
    Silence,
}

#[derive(Default)]
struct Script {
    next: VecDeque<Next>,
    bodies: Vec<String>,
    renewed: u32,
}

/// A double that plays a script.
#[derive(Clone)]
struct Double(Arc<Mutex<Script>>);

impl Double {
    fn new(next: impl IntoIterator<Item = Next>) -> Double {
        Double(Arc::new(Mutex::new(Script {
            next: next.into_iter().collect(),
            ..Script::default()
        })))
    }

    fn bodies(&self) -> Vec<String> {
        self.0.lock().unwrap().bodies.clone()
    }

    fn left(&self) -> usize {
        self.0.lock().unwrap().next.len()
    }
}

impl Transport for Double {
    async fn send(&self, body: String) -> Result<HttpAnswer, TransportError> {
        let next = {
            let mut script = self.0.lock().unwrap();
            script.bodies.push(body);
            script.next.pop_front().expect("an answer for each request")
        };
        match next {
            Next::Answer(status, body) => Ok(HttpAnswer {
                status,
                request_id: None,
                date: None,
                body: body.into_bytes(),
            }),
            Next::Fail(error) => Err(error),
            Next::Silence => std::future::pending().await,
        }
    }

    async fn renew(&self) -> bool {
        self.0.lock().unwrap().renewed += 1;
        true
    }
}

fn settings() -> Ec2Settings {
    let mut settings = Ec2Settings::new(Region::from("eu-central-1"));
    settings.backoff.base = Duration::from_millis(2);
    settings.backoff.cap = Duration::from_millis(10);
    settings.timeout = Duration::from_millis(80);
    settings.changes_per_second = 1_000.0;
    settings
}

fn client(double: &Double) -> Ec2 {
    Ec2::over(double.clone(), &settings())
}

fn error(status: u16, code: &str) -> Next {
    Next::Answer(
        status,
        format!(
            "<Response><Errors><Error><Code>{code}</Code><Message>m</Message></Error></Errors>\
             <RequestID>r-1</RequestID></Response>"
        ),
    )
}

fn entries(cidrs: &[&str], next: Option<&str>) -> Next {
    let items: String = cidrs
        .iter()
        .map(|cidr| format!("<item><cidr>{cidr}</cidr></item>"))
        .collect();
    let next = next.map_or_else(String::new, |next| format!("<nextToken>{next}</nextToken>"));
    Next::Answer(
        200,
        format!(
            "<GetManagedPrefixListEntriesResponse><entrySet>{items}</entrySet>{next}</GetManagedPrefixListEntriesResponse>"
        ),
    )
}

fn route() -> Call {
    Call::CreateRoute {
        table: RouteTableId::from("rtb-1"),
        destination: RouteDestination::List(ListId::from("pl-1")),
        target: RouteTarget::from_id("igw-1").unwrap(),
    }
}

fn creation() -> Call {
    Call::CreateList {
        name: "n".to_owned(),
        family: Family::Ipv4,
        max_entries: 5,
        entries: vec![],
        tags: Tags::new(),
        client_token: "t".to_owned(),
    }
}

fn route_created() -> Next {
    let body = "<CreateRouteResponse><return>true</return></CreateRouteResponse>";
    Next::Answer(200, body.to_owned())
}

fn broken() -> Next {
    Next::Fail(TransportError::Broken("reset".to_owned()))
}

async fn all_entries(client: &Ec2) -> Result<Vec<Entry>, Ec2Error> {
    let list = ListId::from("pl-1");
    client.list_entries(&list, Some(ListVersion(4))).await
}

#[tokio::test]
async fn pages_are_joined_and_keep_the_version() {
    let double = Double::new([
        entries(&["192.0.2.0/25"], Some("a+b")),
        entries(&["192.0.2.128/25"], None),
    ]);
    let client = client(&double);
    let found = all_entries(&client).await.unwrap();
    let cidrs: Vec<String> = found.iter().map(|entry| entry.cidr.to_string()).collect();
    assert_eq!(cidrs, ["192.0.2.0/25", "192.0.2.128/25"]);
    let bodies = double.bodies();
    assert!(bodies.iter().all(|body| body.contains("TargetVersion=4")));
    assert!(bodies[1].ends_with("&NextToken=a%2Bb"), "{}", bodies[1]);
    assert_eq!(client.sent().reads, 2);
}

#[tokio::test]
async fn pages_without_an_end_are_an_error() {
    let double = Double::new((0..2).map(|_| entries(&[], Some("a"))));
    let error = all_entries(&client(&double)).await.unwrap_err();
    assert!(error.to_string().contains("no end"), "{error}");
    assert_eq!(double.left(), 0);
}

#[tokio::test]
async fn selection_of_everything_is_not_sent() {
    let double = Double::new([]);
    let client = client(&double);
    assert!(client.describe_lists(&ListFilter::default()).await.is_err());
    let every = TableFilter::default();
    assert!(client.describe_route_tables(&every).await.is_err());
    assert_eq!(client.sent(), Sent::default());
}

#[tokio::test]
async fn wildcards_of_a_filter_select_nothing_else() {
    let list = |name: &str| {
        format!(
            "<item><addressFamily>IPv4</addressFamily><maxEntries>1</maxEntries><ownerId>1</ownerId>\
             <prefixListArn>a</prefixListArn><prefixListId>pl-{name}</prefixListId>\
             <prefixListName>{name}</prefixListName><state>create-complete</state><version>1</version></item>"
        )
    };
    let body = format!(
        "<DescribeManagedPrefixListsResponse><prefixListSet>{}{}</prefixListSet></DescribeManagedPrefixListsResponse>",
        list("s3*"),
        list("s3-of-others")
    );
    let double = Double::new([Next::Answer(200, body)]);
    let filter = ListFilter {
        names: vec!["s3*".to_owned()],
        ..ListFilter::default()
    };
    let found = client(&double).describe_lists(&filter).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, "s3*");
}

#[tokio::test]
async fn passing_failures_are_repeated() {
    let double = Double::new([
        error(503, "RequestLimitExceeded"),
        Next::Fail(TransportError::Unreachable("refused".to_owned())),
        broken(),
        Next::Silence,
        error(500, "InternalError"),
        Next::Answer(502, "<html>".to_owned()),
        Next::Answer(
            200,
            "<GetManagedPrefixListEntriesResponse><entry".to_owned(),
        ),
        entries(&["192.0.2.0/24"], None),
    ]);
    let client = client(&double);
    assert_eq!(all_entries(&client).await.unwrap().len(), 1);
    assert_eq!(
        client.sent(),
        Sent {
            reads: 8,
            changes: 0,
            throttled: 1
        }
    );
}

#[tokio::test]
async fn tries_are_bounded_and_the_last_reason_is_told() {
    let tries = settings().retries + 1;
    let double = Double::new((0..tries).map(|_| error(503, "RequestLimitExceeded")));
    let error = all_entries(&client(&double)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Throttled);
    assert_eq!(error.code.as_deref(), Some("RequestLimitExceeded"));
    assert!(error.to_string().contains("the last of 9 tries"), "{error}");
    assert_eq!(double.left(), 0);
}

#[tokio::test]
async fn refusals_are_not_repeated() {
    let double = Double::new([error(400, "PrefixListVersionMismatch")]);
    let error = client(&double).perform(&creation()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::VersionMismatch);
    assert_eq!(error.request_id.as_deref(), Some("r-1"));
}

#[tokio::test]
async fn change_without_an_answer_is_not_repeated() {
    for next in [broken(), Next::Silence] {
        let double = Double::new([next]);
        let client = client(&double);
        let error = client.perform(&route()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::OutcomeUnknown);
        assert_eq!(client.sent().changes, 1);
    }
}

#[tokio::test]
async fn change_that_never_left_is_repeated() {
    let refused = || Next::Fail(TransportError::Unreachable("refused".to_owned()));
    let double = Double::new([
        refused(),
        refused(),
        error(503, "RequestLimitExceeded"),
        route_created(),
    ]);
    let done = client(&double).perform(&route()).await.unwrap();
    assert_eq!(done.list, None);
}

#[tokio::test]
async fn change_with_a_client_token_is_repeated_with_the_same_token() {
    let double = Double::new([broken(), error(400, "IdempotentParameterMismatch")]);
    let error = client(&double).perform(&creation()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Other);
    let bodies = double.bodies();
    assert_eq!(bodies[0], bodies[1]);
    assert!(bodies[0].contains("ClientToken=t"));
}

#[tokio::test]
async fn dry_run_is_allowed_by_its_error_code_alone() {
    let allowed = Double::new([error(412, "DryRunOperation")]);
    assert_eq!(client(&allowed).try_run(&route()).await, Ok(()));
    assert!(allowed.bodies()[0].contains("DryRun=true"));
    let denied = Double::new([error(403, "UnauthorizedOperation")]);
    let error = client(&denied).try_run(&route()).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Denied { .. }), "{error}");
    let carried_out = Double::new([route_created()]);
    let error = client(&carried_out).try_run(&route()).await.unwrap_err();
    assert!(error.to_string().contains("dry run"), "{error}");
}

#[tokio::test]
async fn expired_credentials_are_renewed_once() {
    let double = Double::new([error(400, "ExpiredToken"), entries(&[], None)]);
    assert_eq!(all_entries(&client(&double)).await, Ok(vec![]));
    let double = Double::new([error(400, "ExpiredToken"), error(400, "ExpiredToken")]);
    let error = all_entries(&client(&double)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Expired);
    assert_eq!(double.0.lock().unwrap().renewed, 1);
}

#[tokio::test]
async fn changes_wait_for_the_own_bucket_and_reads_do_not() {
    let mut slow = settings();
    slow.changes_per_second = 20.0;
    slow.burst = 2;
    let double = Double::new((0..4).map(|_| route_created()));
    let client = Ec2::over(double.clone(), &slow);
    let start = Instant::now();
    for _ in 0..4 {
        client.clone().perform(&route()).await.unwrap();
    }
    // Two at once, and two at 50 ms each.
    assert!(start.elapsed() >= Duration::from_millis(95));
    assert_eq!(client.sent().changes, 4);
}

#[tokio::test]
async fn pass_ends_at_its_deadline_and_sends_nothing_afterwards() {
    let mut short = settings();
    short.total = Duration::from_millis(60);
    let double = Double::new([Next::Silence, Next::Silence]);
    let pass = Ec2::over(double.clone(), &short).for_pass();
    let start = Instant::now();
    let error = all_entries(&pass).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(5));
    let error = pass.perform(&route()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Deadline);
    assert_eq!(double.bodies().len(), 1);
}

#[tokio::test]
async fn change_whose_token_comes_too_late_is_not_sent() {
    let mut slow = settings();
    slow.changes_per_second = 0.1;
    slow.burst = 1;
    slow.total = Duration::from_secs(2);
    let double = Double::new([route_created()]);
    let client = Ec2::over(double.clone(), &slow);
    client.perform(&route()).await.unwrap();
    let start = Instant::now();
    let error = client.perform(&route()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Deadline);
    assert!(start.elapsed() < Duration::from_secs(1), "no useless wait");
}

#[test]
fn debug_output_shows_no_endpoint() {
    let mut settings = settings();
    settings.endpoint.url = Some("https://user:geheim@host/".to_owned());
    assert!(!format!("{settings:?}").contains("geheim"));
    let error = Ec2::connect(&settings).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
}
