//! Notes for the operator, each with a kind: commands choose notes by kind, never by wording.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::printable::escaped;

/// The subject of a note, as far as a command depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoteKind {
    /// The metadata service gave no usable answer. `check` reports it as a finding.
    Metadata,
    /// Any other subject.
    Other,
}

/// A remark for people. In JSON a note is its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub kind: NoteKind,
    pub text: String,
}

impl From<String> for Note {
    fn from(text: String) -> Note {
        Note {
            kind: NoteKind::Other,
            text: escaped(&text).into_owned(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Notes in the order of their appearance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Notes(Vec<Note>);

impl Notes {
    /// Adds a note. Plain text becomes a note of the kind [`NoteKind::Other`].
    pub fn push(&mut self, note: impl Into<Note>) {
        self.0.push(note.into());
    }

    /// Adds a note about the metadata service.
    pub fn push_metadata(&mut self, text: String) {
        self.0.push(Note {
            kind: NoteKind::Metadata,
            text: escaped(&text).into_owned(),
        });
    }

    /// Moves all notes out of `other` to the end of this list.
    pub fn append(&mut self, other: &mut Notes) {
        self.0.append(&mut other.0);
    }

    /// All notes.
    pub fn iter(&self) -> std::slice::Iter<'_, Note> {
        self.0.iter()
    }

    /// The texts of all notes.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|note| note.text.as_str())
    }

    /// The texts of the notes of one kind.
    pub fn texts_of(&self, kind: NoteKind) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |note| note.kind == kind)
            .map(|note| note.text.as_str())
    }
}

impl From<String> for Notes {
    fn from(text: String) -> Notes {
        Notes(vec![text.into()])
    }
}

impl Extend<String> for Notes {
    fn extend<I: IntoIterator<Item = String>>(&mut self, texts: I) {
        self.0.extend(texts.into_iter().map(Note::from));
    }
}
