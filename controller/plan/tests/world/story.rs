//! The story: each pass as a person would read it.

use std::fmt::Write;

use worker_drain_plan::{Plan, age, observation::HoldState};

use super::World;

impl World {
    /// Writes one reconciliation into the story as a person would read it.
    pub(super) fn tell(&mut self, plan: &Plan) {
        let report = &plan.report;
        let clock = age(self.now.duration_since("2026-01-01T00:10:00Z".parse().unwrap()));
        let told = &mut self.story;
        writeln!(
            told,
            "\n[{clock}] {:?}, drained: {} ({})",
            report.phase, report.drained.message, report.drained.reason
        )
        .unwrap();
        if report.ready.answer != Some(true) {
            writeln!(told, "  not ready: {} ({})", report.ready.message, report.ready.reason).unwrap();
        }
        for task in &report.tasks {
            let hold = match task.hold {
                HoldState::Until(end) => format!("held for {}", age(end.duration_since(self.now))),
                HoldState::Free => "free".into(),
                HoldState::Unread => "?".into(),
            };
            let line = format!(
                "  {:<4} {:<6} {:<11} {:<16} {}",
                task.task.as_str(),
                task.revision,
                task.phase.to_string(),
                hold,
                task.waiting_for
            );
            writeln!(told, "{}", line.trim_end()).unwrap();
            for node in task.nodes.iter().filter(|node| !node.doubt.is_empty()) {
                let worth = node.worth.map_or(String::new(), |worth| worth.to_string());
                writeln!(told, "       {} {worth}: {}", node.name, node.doubt).unwrap();
            }
        }
        for action in &plan.actions {
            writeln!(told, "  → {action}").unwrap();
        }
        if let Some(gate) = report.gate.as_ref().filter(|gate| gate.message != report.drained.message) {
            writeln!(told, "  gate: {} ({})", gate.message, gate.reason).unwrap();
        }
        for note in &report.notes {
            writeln!(told, "  note: {note}").unwrap();
        }
        writeln!(told, "  next look in {:#}", plan.wake_after).unwrap();
    }
}
