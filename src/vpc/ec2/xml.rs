//! XML answers as trees of elements.

use quick_xml::Reader;
use quick_xml::errors::SyntaxError;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesStart, Event};

use crate::printable::shortened;

/// The deepest nesting of an answer. EC2's own answers have seven levels.
const DEEPEST: usize = 32;

/// The number of characters that a message shows of an unreadable body.
const SHOWN: usize = 120;

/// An element without its namespace and attributes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Element {
    pub name: String,
    /// The text of an element without children.
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// The first child with this name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of the first child with this name; `None` for an absent or empty child.
    pub fn text_of(&self, name: &str) -> Option<&str> {
        let text = self.child(name)?.text.as_str();
        (!text.is_empty()).then_some(text)
    }

    /// The items of a set.
    pub fn items(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter(|child| child.name == "item")
    }
}

/// The reason for a body that is no XML document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}; the body begins with \"{begin}\"")]
pub(super) struct XmlFault {
    reason: String,
    begin: String,
}

/// Parses a whole document.
///
/// # Errors
/// [`XmlFault`] for everything that is no complete XML document: HTML, half an answer, other
/// encodings than UTF-8, document types (an answer needs none, and entities of a type can grow
/// without bound).
pub(super) fn parse(body: &[u8]) -> Result<Element, XmlFault> {
    let fault = |reason: String| XmlFault {
        reason,
        begin: shortened(
            &String::from_utf8_lossy(body.get(..4 * SHOWN).unwrap_or(body)),
            SHOWN,
        ),
    };
    let text = std::str::from_utf8(body).map_err(|_| fault("the body is not UTF-8".to_owned()))?;
    tree(text).map_err(fault)
}

fn tree(text: &str) -> Result<Element, String> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut root: Option<Element> = None;
    loop {
        match reader.read_event().map_err(|error| reason(&error))? {
            Event::Start(start) => {
                if open.len() >= DEEPEST {
                    return Err(format!("the body has more than {DEEPEST} levels"));
                }
                open.push(element(&start));
            }
            Event::Empty(start) => close(element(&start), &mut open, &mut root)?,
            Event::End(_) => {
                let done = open.pop().ok_or("an element ends before its begin")?;
                close(done, &mut open, &mut root)?;
            }
            Event::Text(text) => append(&text.xml10_content(), &mut open)?,
            Event::CData(text) => append(&text.xml10_content(), &mut open)?,
            Event::GeneralRef(reference) => {
                let character = reference
                    .resolve_char_ref()
                    .map_err(|error| error.to_string())?;
                match character {
                    Some(character) => append(character.encode_utf8(&mut [0; 4]), &mut open)?,
                    None => {
                        let name = reference.xml10_content();
                        let known = resolve_xml_entity(&name);
                        append(known.ok_or("the body has an unknown entity")?, &mut open)?;
                    }
                }
            }
            Event::DocType(_) => return Err("the body is no answer of an API".to_owned()),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    match root {
        Some(root) if open.is_empty() => Ok(root),
        None if open.is_empty() => Err("the body is empty".to_owned()),
        _ => Err("the body breaks off".to_owned()),
    }
}

fn reason(error: &quick_xml::Error) -> String {
    match error {
        quick_xml::Error::Syntax(
            SyntaxError::UnclosedTag | SyntaxError::UnclosedComment | SyntaxError::UnclosedCData,
        ) => "the body breaks off".to_owned(),
        other => format!("the body is no XML: {other}"),
    }
}

fn element(start: &BytesStart<'_>) -> Element {
    Element {
        name: start.local_name().as_ref().to_owned(),
        ..Element::default()
    }
}

fn close(
    mut done: Element,
    open: &mut [Element],
    root: &mut Option<Element>,
) -> Result<(), String> {
    if !done.children.is_empty() {
        // White space between the children.
        done.text.clear();
    }
    match open.last_mut() {
        Some(parent) => parent.children.push(done),
        None if root.is_some() => return Err("the body has two documents".to_owned()),
        None => *root = Some(done),
    }
    Ok(())
}

fn append(text: &str, open: &mut [Element]) -> Result<(), String> {
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim().is_empty() => {}
        None => return Err("the body has text outside of its document".to_owned()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> String {
        parse(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn elements_keep_their_text_and_lose_their_namespace() {
        let root = parse(
            b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a:R xmlns:a=\"u\">\n <set>\n  \
              <item><d>x &amp; &#x41;<![CDATA[<b>]]></d></item>\n  <item/>\n </set>\n</a:R>\n",
        )
        .unwrap();
        assert_eq!(root.name, "R");
        let set = root.child("set").unwrap();
        assert_eq!(set.text, "");
        let items: Vec<&Element> = set.items().collect();
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].text_of("d"), Some("x & A<b>"));
        assert_eq!(items[1].text_of("d"), None);
    }

    #[test]
    fn html_half_documents_and_garbage_are_faults_with_their_begin() {
        for (body, says) in [
            ("", "empty"),
            ("  \n", "empty"),
            (
                "<!DOCTYPE html><html><body>503</body></html>",
                "no answer of an API",
            ),
            ("<R><set><item>", "breaks off"),
            ("<R><set", "breaks off"),
            ("<R><a>1</b></R>", "no XML"),
            ("<R/><R/>", "two documents"),
            ("busy", "outside"),
            ("<R>&nbsp;</R>", "entity"),
            ("{\"a\": 1}", "outside"),
        ] {
            let text = said(body);
            assert!(text.contains(says), "{body}: {text}");
        }
        assert!(said("<html>Bad\u{1b}[31m</html").contains("<html>Bad"));
        assert!(!said("<html>\u{1b}[31m</html").contains('\u{1b}'));
        assert!(
            parse(b"<R>\xff</R>")
                .unwrap_err()
                .to_string()
                .contains("UTF-8")
        );
    }

    #[test]
    fn deep_nesting_and_entity_types_are_refused() {
        let deep = "<a>".repeat(10_000);
        assert!(said(&deep).contains("levels"));
        let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\">]><a>&b;</a>";
        assert!(said(bomb).contains("no answer of an API"));
    }

    #[test]
    fn long_bodies_are_cut_in_messages() {
        let text = said(&"x".repeat(100_000));
        assert!(text.len() < 400, "{}", text.len());
    }
}
