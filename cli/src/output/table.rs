//! Columns aligned as docker aligns them: at least ten wide, three spaces apart, the last cell of a line free.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Lays out lines whose cells are separated by tabs. A column is a run of neighbouring lines that have that cell.
pub fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH, PADDING)
}

pub fn align_with(text: &str, min_width: usize, padding: usize) -> String {
    let (body, ending) = text.strip_suffix('\n').map_or((text, ""), |body| (body, "\n"));
    let lines: Vec<Vec<&str>> = body.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(1) - 1;
    for column in 0..columns {
        let mut start = 0;
        while start < lines.len() {
            let end = (start..lines.len()).find(|row| widths[*row].len() <= column).unwrap_or(lines.len());
            let block = start..end;
            let widest = block.clone().map(|row| width(lines[row][column]) + padding).max().unwrap_or(0).max(min_width);
            for row in block {
                widths[row][column] = widest;
            }
            start = end + 1;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (index, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for (cell, wide) in cells.iter().zip(widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', wide - width(cell)));
        }
        out.push_str(cells.last().unwrap_or(&""));
    }
    out.push_str(ending);
    out
}

/// In characters.
fn width(cell: &str) -> usize {
    if cell.is_ascii() { cell.len() } else { cell.chars().count() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_like_dockers() {
        let text = "CONTAINER ID\tIMAGE\tNAMES\n0123456789ab\tbusybox\tx\n";
        assert_eq!(align(text), "CONTAINER ID   IMAGE     NAMES\n0123456789ab   busybox   x\n");
        assert_eq!(align("plain\nlines\n"), "plain\nlines\n");
        assert_eq!(align("└─ ä\tb\n"), "└─ ä      b\n", "wide in characters, not bytes");
    }
}
