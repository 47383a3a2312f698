//! What became of the jobs, read from outside.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::sleep;

/// The folder in which each job of the sample app leaves a file of its own.
#[derive(Clone, Debug)]
pub struct Journal {
    folder: PathBuf,
}

/// What one job left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// When it began, each time that it did, in seconds since 1970.
    pub starts: Vec<f64>,
    /// When it came to its end, each time that it did.
    pub ends: Vec<f64>,
    /// The node that ran it last.
    pub node: String,
}

/// What became of a set of jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Jobs that began at least once.
    pub started: BTreeSet<String>,
    /// Jobs that came to their end at least once.
    pub finished: BTreeSet<String>,
    /// Jobs that never came to their end: they wait, they run, or they are lost. When all is over: they are lost.
    pub unfinished: BTreeSet<String>,
    /// Jobs that began more than once.
    pub run_twice: BTreeSet<String>,
}

impl Journal {
    /// The journal in this folder.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What each job that began has left so far.
    pub fn records(&self) -> BTreeMap<String, Record> {
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).expect("the journal's folder can be read") {
            let entry = entry.expect("the journal's folder can be read");
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            records.insert(entry.file_name().to_string_lossy().into_owned(), parse(&text));
        }
        records
    }

    /// What became of these jobs so far.
    pub fn tally<'a>(&self, jobs: impl IntoIterator<Item = &'a String>) -> Tally {
        let records = self.records();
        let mut tally = Tally::default();
        for id in jobs {
            let (starts, ends) = records.get(id).map_or((0, 0), |record| (record.starts.len(), record.ends.len()));
            if starts > 0 {
                tally.started.insert(id.clone());
            }
            if starts > 1 {
                tally.run_twice.insert(id.clone());
            }
            if ends > 0 { &mut tally.finished } else { &mut tally.unfinished }.insert(id.clone());
        }
        tally
    }

    /// Waits until at least `count` of these jobs have begun. Panics, naming the rest, when none begins for a minute.
    pub async fn wait_started<'a>(&self, jobs: impl IntoIterator<Item = &'a String> + Clone, count: usize) {
        self.wait(jobs, "begin", |tally| (tally.started.len(), count)).await;
    }

    /// Waits until all of these jobs have come to their end. Panics, naming the rest, when none does for a minute.
    pub async fn wait_finished<'a>(&self, jobs: impl IntoIterator<Item = &'a String> + Clone) {
        let count = jobs.clone().into_iter().count();
        self.wait(jobs, "end", |tally| (tally.finished.len(), count)).await;
    }

    /// The bound is on standing still, not on the whole: a slow machine is no failure.
    async fn wait<'a, J>(&self, jobs: J, what: &str, progress: impl Fn(&Tally) -> (usize, usize))
    where
        J: IntoIterator<Item = &'a String> + Clone,
    {
        const LOOK_EVERY: Duration = Duration::from_millis(50);
        const STANDS_STILL: u32 = 1200; // looks: a minute

        let (mut best, mut still) = (0, 0);
        loop {
            let tally = self.tally(jobs.clone());
            let (have, want) = progress(&tally);
            if have >= want {
                return;
            }
            still = if have > best { 0 } else { still + 1 };
            best = best.max(have);
            assert!(still < STANDS_STILL, "only {have} of {want} jobs {what}, and none for a minute: {tally:?}");
            sleep(LOOK_EVERY).await;
        }
    }
}

fn parse(text: &str) -> Record {
    let mut record = Record::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (word, at) = (words.next(), words.next().and_then(|at| at.parse().ok()));
        match (word, at) {
            (Some("start"), Some(at)) => record.starts.push(at),
            (Some("end"), Some(at)) => record.ends.push(at),
            _ => panic!("the journal has a line that no job writes: {line:?}"),
        }
        words.nth(1).unwrap_or_default().clone_into(&mut record.node);
    }
    record
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Journal;

    #[test]
    fn a_tally_tells_finished_lost_and_run_twice_apart() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("fine"), "start 1.5 10 w@a\nend 2.5 10 w@a\n").unwrap();
        fs::write(folder.path().join("killed"), "start 1.5 10 w@a\n").unwrap();
        fs::write(folder.path().join("again"), "start 1.5 10 w@a\nstart 3.5 11 w@b\nend 4.5 11 w@b\n").unwrap();
        let journal = Journal::at(folder.path());

        let ids = ["again", "fine", "killed", "never"].map(String::from);
        let tally = journal.tally(&ids);
        assert_eq!(tally.started.iter().collect::<Vec<_>>(), ["again", "fine", "killed"]);
        assert_eq!(tally.finished.iter().collect::<Vec<_>>(), ["again", "fine"]);
        assert_eq!(tally.unfinished.iter().collect::<Vec<_>>(), ["killed", "never"]);
        assert_eq!(tally.run_twice.iter().collect::<Vec<_>>(), ["again"]);
        assert_eq!(journal.records()["again"].node, "w@b");
    }
}
