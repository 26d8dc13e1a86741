//! Aligned columns.

use std::iter;

use unicode_width::UnicodeWidthStr;

use super::{Style, printable};

/// Between columns.
const GAP: usize = 2;

/// Rows of cells, under a heading unless they are single facts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    heading: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
    below: Vec<Table>,
}

/// A cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    mood: Mood,
}

#[derive(Debug, Clone, Copy)]
enum Mood {
    Plain,
    Heading,
    Good,
    Doubtful,
    Bad,
}

impl Table {
    /// Columns with these headings.
    pub(crate) fn new(heading: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self {
            heading: heading
                .into_iter()
                .map(|name| Cell::heading(name.as_ref()))
                .collect(),
            ..Self::default()
        }
    }

    /// One fact a row: its name and its value. Facts without a value are left out.
    pub(crate) fn facts<const N: usize>(facts: [(&'static str, String); N]) -> Self {
        let known = facts.into_iter().filter(|(_, value)| !value.is_empty());
        Self {
            rows: known
                .map(|(name, value)| vec![Cell::heading(name), value.into()])
                .collect(),
            ..Self::default()
        }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Adds a table below this one; an empty one leaves no trace.
    pub(crate) fn below(&mut self, table: Self) {
        if !table.rows.is_empty() {
            self.below.push(table);
        }
    }

    /// Whether there is nothing in it but a heading.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.below.is_empty()
    }

    pub(crate) fn render(&self, style: &Style) -> String {
        let mut text = self.render_own(style);
        for table in &self.below {
            text.push('\n');
            text.push_str(&table.render(style));
        }
        text
    }

    fn render_own(&self, style: &Style) -> String {
        let lines = iter::once(&self.heading)
            .filter(|heading| !heading.is_empty())
            .chain(&self.rows);
        let lines: Vec<_> = lines.collect();
        let widths = widths(&lines);
        let mut text = String::new();
        for line in lines {
            for (index, cell) in line.iter().enumerate() {
                text.push_str(&cell.painted(style));
                // The last one is not filled up: lines are cut and compared.
                if index + 1 < line.len() {
                    let fill = widths[index] - cell.width() + GAP;
                    text.extend(iter::repeat_n(' ', fill));
                }
            }
            text.push('\n');
        }
        text
    }
}

fn widths(lines: &[&Vec<Cell>]) -> Vec<usize> {
    let mut widths = Vec::new();
    for line in lines {
        for (index, cell) in line.iter().enumerate() {
            if widths.len() <= index {
                widths.push(0);
            }
            widths[index] = widths[index].max(cell.width());
        }
    }
    widths
}

impl Cell {
    fn heading(text: &str) -> Self {
        Self::with(text, Mood::Heading)
    }

    pub(crate) fn good(text: impl AsRef<str>) -> Self {
        Self::with(text.as_ref(), Mood::Good)
    }

    pub(crate) fn doubtful(text: impl AsRef<str>) -> Self {
        Self::with(text.as_ref(), Mood::Doubtful)
    }

    pub(crate) fn bad(text: impl AsRef<str>) -> Self {
        Self::with(text.as_ref(), Mood::Bad)
    }

    fn with(text: &str, mood: Mood) -> Self {
        Self {
            // An empty cell would look like a shifted row.
            text: if text.is_empty() {
                "-".to_owned()
            } else {
                printable(text)
            },
            mood,
        }
    }

    fn width(&self) -> usize {
        self.text.width()
    }

    fn painted(&self, style: &Style) -> String {
        match self.mood {
            Mood::Plain => self.text.clone(),
            Mood::Heading => style.heading(&self.text),
            Mood::Good => style.good(&self.text),
            Mood::Doubtful => style.doubtful(&self.text),
            Mood::Bad => style.bad(&self.text),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::with(text, Mood::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::with(&text, Mood::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_do_not_end_in_blanks() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["a".into(), Cell::good("fine")]);
        table.row(["längere".into(), "".into()]);
        let text = table.render(&Style::plain());
        assert_eq!(text, "NAME     STATE\na        fine\nlängere  -\n");
    }

    /// Some letters take two places, and some none of their own.
    #[test]
    fn columns_are_as_wide_as_they_show() {
        let mut table = Table::default();
        table.row(["日本".into(), "x".into()]);
        table.row(["e\u{301}e\u{301}".into(), "y".into()]);
        table.row(["four".into(), "z".into()]);
        let text = table.render(&Style::plain());
        assert_eq!(text, "日本  x\ne\u{301}e\u{301}    y\nfour  z\n");
    }

    #[test]
    fn colours_take_no_room() {
        let mut table = Table::default();
        table.row([Cell::good("a"), "x".into()]);
        table.row([Cell::bad("long"), "y".into()]);
        let text = table.render(&Style::coloured());
        assert_eq!(text, "\u{1b}[32ma\u{1b}[0m     x\n\u{1b}[31mlong\u{1b}[0m  y\n");
    }

    #[test]
    fn facts_without_a_value_are_left_out() {
        let table = Table::facts([("IDENTITY", "a".to_owned()), ("EXPIRES", String::new())]);
        assert_eq!(table.render(&Style::plain()), "IDENTITY  a\n");
    }
}
