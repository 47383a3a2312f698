//! What is shown when a test fails: what happened in ECS, and what the workers said last.

use std::fmt::Write as _;

use ecs_emulator::model::{Entry, Transition};

use crate::stage::Stage;

const HISTORY_LINES: usize = 60;
const LOG_LINES: usize = 12;

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.what_happened());
        }
    }
}

impl Stage {
    /// For people: the tasks, the last of ECS's history, the end of each worker's log.
    pub fn what_happened(&self) -> String {
        let tasks = self.tasks();
        let history: Vec<String> =
            self.emulator().with_world(|world| world.history().iter().filter_map(line).collect());
        let mut text = String::from("--- tasks ---\n");
        for task in &tasks {
            let stop = task.stop.as_ref().map_or("", |stop| &stop.reason);
            let (id, revision, last, exit) = (task.id, task.revision, task.last.as_str(), task.exit);
            let (healthy, held) = (task.is_healthy, task.is_held);
            let _ =
                writeln!(text, "{id} of revision {revision} {last} healthy={healthy} held={held} exit={exit:?} {stop}");
        }
        text += "--- the last of ECS's history ---\n";
        text += &history[history.len().saturating_sub(HISTORY_LINES)..].join("\n");
        for task in &tasks {
            let log = self.worker_log(task.id);
            let lines: Vec<&str> = log.lines().collect();
            let _ = writeln!(text, "\n--- the end of what {} printed ---", task.node());
            text += &lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        }
        text
    }
}

fn line(entry: &Entry) -> Option<String> {
    let seconds = entry.at.0 / 1000 % 1000;
    let what = match &entry.what {
        Transition::Task { .. } => return None,
        other => format!("{other:?}"),
    };
    Some(format!("{seconds:03}.{:03} {what}", entry.at.0 % 1000))
}
