//! The summary.

use std::{fmt::Write as _, time::Duration};

use e2e::{Figures, percentile};

pub fn of(without: &Figures, with: &Figures) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{:<44}{:>10}{:>10}", "", "without", "with");
    let mut row = |what: &str, value: &dyn Fn(&Figures) -> String| {
        let _ = writeln!(text, "{what:<44}{:>10}{:>10}", value(without), value(with));
    };
    row("jobs submitted", &|figures| figures.submitted.to_string());
    row("jobs started", &|figures| figures.started.to_string());
    row("jobs finished", &|figures| figures.finished.to_string());
    row("jobs lost: killed in mid-run", &|figures| figures.lost.to_string());
    row("jobs stuck: taken by a worker that was killed", &|figures| figures.waiting.to_string());
    row("jobs run twice", &|figures| figures.run_twice.to_string());
    row("the rollout took", &|figures| seconds(figures.rollout));
    row("deployment to first worker taking no more", &|figures| seconds(figures.to_first_cancel));
    row("a task's last job to its release, median", &|figures| seconds(percentile(&figures.releases, 50)));
    row("a task's last job to its release, longest", &|figures| seconds(percentile(&figures.releases, 100)));
    row("calls to ECS", &|figures| figures.ecs_calls.to_string());
    text
}

fn seconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "-".to_owned(), |duration| format!("{:.1} s", duration.as_secs_f64()))
}
