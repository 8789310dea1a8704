//! The ceiling: the same join of the same messages by the same table, on one thread, with no runtime, no supervision and
//! nothing handed over.

use crate::{error::Error, job::Job};

/// Joins it all, and calls `write` with each page.
pub(crate) fn join<J: Job>(
    job: &J,
    partitions: impl IntoIterator<Item = J::Partition>,
    table: &mut J::Table,
    mut write: impl FnMut(crate::job::Sheet<J::Page>) -> Result<(), Error>,
) -> Result<(), Error> {
    for mut partition in partitions {
        while job.fill(&mut partition)? {
            let routed = job.route(&partition)?;
            job.pass(&mut partition);
            for batch in routed.batches {
                job.merge(table, &batch, &mut 0, job.len(&batch));
            }
            for sheet in routed.sheets.into_iter().chain(job.pages(table, false)) {
                write(sheet)?;
            }
        }
    }
    for sheet in job.pages(table, true) {
        write(sheet)?;
    }
    Ok(())
}
