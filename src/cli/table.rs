//! Tables that fit the terminal: short forms first, then fewer columns, then elided names.

use anstyle::Style;

use super::text::{elide, width};

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// What stands above it.
    pub(super) title: &'static str,
    /// How its cells are set.
    pub(super) align: Align,
    /// Where room is short, columns leave in falling order of this number; 0 stays.
    pub(super) leaves: u8,
    /// Whether its cells may be elided.
    pub(super) elastic: bool,
}

/// How cells are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    short: Option<String>,
    style: Style,
}

/// A table; [`Table::render`] makes text of it.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// Columns between two cells.
const GAP: usize = 2;
/// An elastic column is not squeezed below this before other columns leave.
const ELASTIC_AT_LEAST: usize = 24;

impl Column {
    /// Returns a column of text.
    pub(super) const fn left(title: &'static str) -> Column {
        Column { title, align: Align::Left, leaves: 0, elastic: false }
    }

    /// Returns a column of numbers.
    pub(super) const fn right(title: &'static str) -> Column {
        Column { title, align: Align::Right, leaves: 0, elastic: false }
    }

    /// Returns the column, to leave where room is short.
    pub(super) const fn leaves(self, order: u8) -> Column {
        Column { leaves: order, ..self }
    }

    /// Returns the column, its cells to be elided where room is short.
    pub(super) const fn elastic(self) -> Column {
        Column { elastic: true, ..self }
    }
}

impl Cell {
    /// Returns the cell with a shorter form for narrow terminals.
    pub(super) fn or_short(self, short: impl Into<String>) -> Cell {
        Cell { short: Some(short.into()), ..self }
    }

    /// Returns the cell in a style.
    pub(super) fn styled(self, style: Style) -> Cell {
        Cell { style, ..self }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), short: None, style: Style::new() }
    }
}

impl Table {
    /// Returns an empty table.
    pub(super) fn new(columns: impl Into<Vec<Column>>) -> Table {
        Table { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row; it has a cell a column.
    pub(super) fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        let cells = cells.into();
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has a cell a column");
        self.rows.push(cells);
    }

    /// Returns the table as lines, each ended; `columns` is the terminal's width where there is one.
    pub(super) fn render(mut self, columns: Option<usize>) -> String {
        if let Some(columns) = columns {
            self.narrow(columns);
        }
        let widths: Vec<usize> = (0..self.columns.len()).map(|index| self.width(index)).collect();
        let mut text = String::new();
        if self.columns.iter().any(|column| !column.title.is_empty()) {
            let titles: Vec<Cell> = self.columns.iter().map(|column| Cell::from(column.title)).collect();
            self.line(&titles, &widths, &mut text);
        }
        for row in &self.rows {
            self.line(row, &widths, &mut text);
        }
        text
    }

    /// Makes the table fit: short forms, then fewer columns, then elided cells.
    fn narrow(&mut self, columns: usize) {
        if self.least() > columns {
            for cell in self.rows.iter_mut().flatten() {
                if let Some(short) = cell.short.take() {
                    cell.text = short;
                }
            }
        }
        while self.least() > columns {
            let last = (0..self.columns.len()).max_by_key(|&index| self.columns[index].leaves);
            let Some(index) = last.filter(|&index| self.columns[index].leaves > 0) else {
                break;
            };
            self.columns.remove(index);
            for row in &mut self.rows {
                row.remove(index);
            }
        }
        let Some(elastic) = self.columns.iter().position(|column| column.elastic) else {
            return;
        };
        let others = self.total() - self.width(elastic);
        let room = columns.saturating_sub(others).max(8);
        for row in &mut self.rows {
            row[elastic].text = elide(&row[elastic].text, room).into_owned();
        }
    }

    /// Returns the width that the table takes.
    fn total(&self) -> usize {
        (0..self.columns.len()).map(|index| self.width(index) + GAP).sum::<usize>().saturating_sub(GAP)
    }

    /// Returns the width that the table takes with its elastic column squeezed.
    fn least(&self) -> usize {
        let saved: usize = (0..self.columns.len())
            .filter(|&index| self.columns[index].elastic)
            .map(|index| self.width(index).saturating_sub(ELASTIC_AT_LEAST))
            .sum();
        self.total() - saved
    }

    fn width(&self, index: usize) -> usize {
        let cells = self.rows.iter().map(|row| width(&row[index].text)).max().unwrap_or(0);
        cells.max(width(self.columns[index].title))
    }

    fn line(&self, cells: &[Cell], widths: &[usize], text: &mut String) {
        let start = text.len();
        for ((cell, column), &column_width) in cells.iter().zip(&self.columns).zip(widths) {
            let padding = " ".repeat(column_width.saturating_sub(width(&cell.text)));
            let styled = format!("{}{}{}", cell.style, cell.text, cell.style.render_reset());
            let styled = if cell.text.is_empty() { String::new() } else { styled };
            match column.align {
                Align::Left => text.extend([styled.as_str(), &padding]),
                Align::Right => text.extend([padding.as_str(), &styled]),
            }
            text.push_str(&" ".repeat(GAP));
        }
        text.truncate(start + text[start..].trim_end().len());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([
            Column::left("MODEL").elastic(),
            Column::right("SIZE").leaves(2),
            Column::left("VERDICT"),
            Column::right("CONTEXT").leaves(1),
        ]);
        table.row([
            Cell::from("a-model-with-a-name-that-never-ends-Q4_K_M"),
            "4.9 GB".into(),
            Cell::from("Full GPU offload possible").or_short("full GPU"),
            "4,096".into(),
        ]);
        table.row(["b".into(), "241 MB".into(), Cell::from("Likely too large").or_short("too large"), Cell::default()]);
        table
    }

    #[test]
    fn a_table_without_a_width_shows_everything() {
        assert_eq!(
            table().render(None),
            "MODEL                                         SIZE  VERDICT                    CONTEXT\n\
             a-model-with-a-name-that-never-ends-Q4_K_M  4.9 GB  Full GPU offload possible    4,096\n\
             b                                           241 MB  Likely too large\n"
        );
    }

    #[test]
    fn a_narrow_table_shortens_words_before_it_drops_columns() {
        assert_eq!(
            table().render(Some(52)),
            "MODEL                       SIZE  VERDICT    CONTEXT\n\
             a-model-with…ends-Q4_K_M  4.9 GB  full GPU     4,096\n\
             b                         241 MB  too large\n"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for columns in 30..120 {
            for line in table().render(Some(columns)).lines() {
                assert!(width(line) <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn columns_leave_in_their_order() {
        let text = table().render(Some(36));
        assert!(!text.contains("SIZE") && !text.contains("CONTEXT"), "{text}");
        assert!(table().render(Some(46)).contains("CONTEXT"));
    }
}
