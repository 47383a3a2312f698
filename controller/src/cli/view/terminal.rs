//! The terminal itself: its size, and drawing in place. It gets back what it had, however the run ends.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use jiff::Timestamp;

use super::{
    live::{Size, table},
    watched::Watched,
};

fn size() -> Size {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let known = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    known.map_or(Size { width: 80, height: 24 }, |size| Size {
        width: usize::from(size.ws_col),
        height: usize::from(size.ws_row),
    })
}

/// Whether standard output is a terminal on which lines can be drawn over.
pub fn is_fit() -> bool {
    io::stdout().is_terminal() && env::var("TERM").is_ok_and(|term| term != "dumb" && !term.is_empty())
}

/// A table that is drawn over itself.
#[derive(Debug)]
pub struct Live {
    drawn: usize,
    colour: bool,
}

impl Live {
    /// Hides the cursor.
    pub fn start() -> Self {
        write("\x1b[?25l");
        Self { drawn: 0, colour: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    /// Draws it again.
    pub fn draw(&mut self, drains: &[Watched], now: Timestamp) {
        let lines = table(drains, now, size(), self.colour);
        let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
        // Each line is cleared behind its text, and what is left below is cleared at the end.
        write(&format!("{up}\r{}\x1b[K\r\n\x1b[J", lines.join("\x1b[K\r\n")));
        self.drawn = lines.len();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the cursor back.
pub fn restore() {
    write("\x1b[?25h");
}

/// A terminal that has gone away is no reason to stop draining.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
