//! Answers: the XML of EC2's Query API, its errors, and the ways in which an answer gets lost.

use std::fmt::Write;
use std::time::Duration;

use crate::knobs::Wrong;

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The HTTP status.
    pub status: u16,
    /// Header fields besides `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// The way in which the answer reaches the client.
    pub delivery: Delivery,
}

/// The way in which an answer reaches the client. A transport without sockets must give the client
/// the error that belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// At once.
    #[default]
    Whole,
    /// After a pause.
    Slow(Duration),
    /// Half of the body; then the connection ends.
    Half,
    /// The connection ends without an answer.
    Dropped,
    /// No answer comes, and the connection stays.
    Hangs,
}

/// An error of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// EC2's code, `InvalidParameterValue` for example.
    pub code: String,
    /// The text for people.
    pub message: String,
    /// True if a correct client never provokes the error.
    pub misuse: bool,
}

impl ApiError {
    /// An error that a correct client never provokes, with the status that EC2 gives to the code.
    pub fn misuse(code: &str, message: impl Into<String>) -> ApiError {
        ApiError {
            misuse: true,
            ..ApiError::new(code, message)
        }
    }

    /// An error with the status that EC2 gives to the code.
    pub fn new(code: &str, message: impl Into<String>) -> ApiError {
        let status = match code {
            "AuthFailure" | "OptInRequired" => 401,
            "UnauthorizedOperation" | "SignatureDoesNotMatch" | "Blocked" => 403,
            "DryRunOperation" => 412,
            "InternalError" | "InternalFailure" => 500,
            "RequestLimitExceeded" | "Unavailable" | "ServiceUnavailable" => 503,
            _ => 400,
        };
        ApiError {
            status,
            code: code.to_owned(),
            message: message.into(),
            misuse: false,
        }
    }

    /// The answer with this error.
    pub(crate) fn answer(&self, request_id: &str) -> HttpAnswer {
        let mut xml = Xml::default();
        xml.node("Errors", |errors| {
            errors.node("Error", |error| {
                error.text("Code", &self.code);
                error.text("Message", &self.message);
            });
        });
        xml.text("RequestID", request_id);
        let body = format!("{DECLARATION}<Response>{}</Response>", xml.0);
        HttpAnswer::xml(self.status, body, request_id)
    }
}

/// The first line of each answer.
const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

impl HttpAnswer {
    /// An answer of XML.
    fn xml(status: u16, body: String, request_id: &str) -> HttpAnswer {
        let header = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        HttpAnswer {
            status,
            headers: vec![
                header("x-amzn-RequestId", request_id),
                header("Content-Type", "text/xml;charset=UTF-8"),
                header("Server", "AmazonEC2"),
            ],
            body,
            delivery: Delivery::Whole,
        }
    }

    /// The answer of an action that succeeded.
    pub(crate) fn success(action: &str, inner: &Xml, request_id: &str) -> HttpAnswer {
        let mut xml = Xml::default();
        xml.text("requestId", request_id);
        let body = format!(
            "{DECLARATION}<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             {}{}</{action}Response>",
            xml.0, inner.0
        );
        HttpAnswer::xml(200, body, request_id)
    }

    /// A page of a proxy in place of an answer.
    fn html(status: u16) -> HttpAnswer {
        HttpAnswer {
            status,
            headers: vec![("Content-Type".to_owned(), "text/html".to_owned())],
            body: format!(
                "<html><head><title>{status}</title></head>\
                 <body><h1>{status} from a proxy<br></h1></body></html>"
            ),
            delivery: Delivery::Whole,
        }
    }

    /// The answer, replaced or damaged by a fault.
    pub(crate) fn spoiled(self, wrong: &Wrong, request_id: &str) -> HttpAnswer {
        let error = |code: &str, text: &str| ApiError::new(code, text).answer(request_id);
        let by = |delivery| HttpAnswer {
            delivery,
            ..self.clone()
        };
        match wrong {
            Wrong::Unavailable => error(
                "Unavailable",
                "The service is unavailable. Please try again.",
            ),
            Wrong::Internal => error("InternalError", "An internal error has occurred"),
            Wrong::Throttled => error("RequestLimitExceeded", "Request limit exceeded."),
            Wrong::Code(code) => error(code, "A fault of the double."),
            Wrong::Html(status) => HttpAnswer::html(*status),
            Wrong::Empty(status) => HttpAnswer {
                status: *status,
                headers: Vec::new(),
                body: String::new(),
                delivery: Delivery::Whole,
            },
            Wrong::Truncated => self.truncated(),
            Wrong::Half => by(Delivery::Half),
            Wrong::Dropped => by(Delivery::Dropped),
            Wrong::Hangs => by(Delivery::Hangs),
            Wrong::Slow(pause) => by(Delivery::Slow(*pause)),
        }
    }

    /// The same answer with half of its body, whole for HTTP.
    fn truncated(mut self) -> HttpAnswer {
        let mut end = self.body.len() / 2;
        while !self.body.is_char_boundary(end) {
            end -= 1;
        }
        self.body.truncate(end);
        self
    }
}

/// XML under construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Xml(pub String);

impl Xml {
    /// An element with text.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
        for c in text.chars() {
            match c {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\r' => self.0.push_str("&#13;"),
                other => self.0.push(other),
            }
        }
        self.close(name);
    }

    /// An element with a number or another plain value.
    pub(crate) fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        self.text(name, &value.to_string());
    }

    /// An element with text, absent for `None`.
    pub(crate) fn some(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// An element with elements.
    pub(crate) fn node(&mut self, name: &str, fill: impl FnOnce(&mut Xml)) {
        self.0.push('<');
        self.0.push_str(name);
        self.0.push('>');
        fill(self);
        self.close(name);
    }

    /// A set: one `item` for each member.
    pub(crate) fn set<T>(
        &mut self,
        name: &str,
        members: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Xml, T),
    ) {
        self.node(name, |set| {
            for member in members {
                set.node("item", |item| fill(item, member));
            }
        });
    }

    /// The set of tags.
    pub(crate) fn tags<'a>(&mut self, tags: impl IntoIterator<Item = (&'a String, &'a String)>) {
        self.set("tagSet", tags, |item, (key, value)| {
            item.text("key", key);
            item.text("value", value);
        });
    }

    /// Adds elements of a later version of EC2 to each item and to the answer.
    pub(crate) fn add_unknown(&mut self) {
        let unknown = "<laterElement><item><value>1</value></item></laterElement>";
        // An item that ends with text is a plain value.
        self.0 = self.0.replace("></item>", &format!(">{unknown}</item>"));
        self.0.push_str(unknown);
    }

    fn close(&mut self, name: &str) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "</{name}>");
    }
}
