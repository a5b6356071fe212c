//! The results of a protocol: tables, figures and notes, for the terminal, for scripts and for `tailor
//! report`.

use super::Table;
use crate::startup::command_line;
use crate::{Error, Result};
use bundles::container::write_atomically;
use serde_json::{Value, json};
use std::path::Path;

/// A figure and its file.
#[derive(Debug, Clone)]
pub struct Figure {
    /// File name in the work folder.
    pub file: &'static str,
    /// Caption.
    pub caption: String,
    /// The figure as a complete SVG document.
    pub svg: String,
}

/// The results of a protocol.
#[derive(Debug, Clone)]
pub struct Findings {
    /// Name of the protocol.
    pub protocol: &'static str,
    /// What was measured, and on what.
    pub title: String,
    /// Tables, the first like the paper's.
    pub tables: Vec<Table>,
    /// Figures like the paper's.
    pub figures: Vec<Figure>,
    /// What readers need to know about the numbers.
    pub notes: Vec<String>,
    /// The numbers, unrounded.
    pub results: Value,
}

impl Findings {
    /// Writes figures and `protocol.json` to the work folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn leave(&self, work: &Path) -> Result<()> {
        std::fs::create_dir_all(work).map_err(Error::io(work))?;
        for figure in &self.figures {
            write_atomically(&work.join(figure.file), figure.svg.as_bytes())?;
        }
        write_atomically(&work.join("protocol.json"), format!("{}\n", self.json()).as_bytes())?;
        Ok(())
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let figures = self.figures.iter().map(|f| json!({ "file": f.file, "caption": f.caption }));
        json!({
            "version": 1,
            "program": concat!("tailor ", env!("CARGO_PKG_VERSION")),
            "command": command_line(),
            "protocol": self.protocol,
            "title": self.title,
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
            "figures": figures.collect::<Vec<_>>(),
            "notes": self.notes,
            "results": self.results,
        })
    }

    /// Tables, notes and paths of the figures, for a terminal.
    pub fn text(&self, work: &Path) -> String {
        let mut text = format!("{}\n\n", self.title);
        for table in &self.tables {
            text += &format!("{}\n{}\n", table.caption, table.text());
        }
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        for figure in &self.figures {
            text += &format!("{}: {}\n", figure.caption, work.join(figure.file).display());
        }
        text
    }
}
