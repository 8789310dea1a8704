//! A queue that is never copied whole: it grows by the chunk, so that no push is long.

use std::collections::VecDeque;

/// Items of a full chunk.
const CHUNK: usize = 256;

/// First in, first out.
pub(crate) struct Queue<T> {
    /// Full ones, the oldest first; what is in them comes before the rest.
    chunks: VecDeque<VecDeque<T>>,
    rest: VecDeque<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { chunks: VecDeque::new(), rest: VecDeque::new() }
    }
}

impl<T> Queue<T> {
    pub(crate) fn push(&mut self, item: T) {
        if self.rest.len() == CHUNK {
            let full = std::mem::replace(&mut self.rest, VecDeque::with_capacity(CHUNK));
            self.chunks.push_back(full);
        }
        self.rest.push_back(item);
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        while let Some(oldest) = self.chunks.front_mut() {
            if let Some(item) = oldest.pop_front() {
                return Some(item);
            }
            self.chunks.pop_front();
        }
        self.rest.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty() && (self.chunks.is_empty() || self.chunks.iter().all(VecDeque::is_empty))
    }

    /// Takes out what is not to be kept; returns how much that was.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) -> usize {
        let mut out = 0;
        for chunk in self.chunks.iter_mut().chain([&mut self.rest]) {
            let before = chunk.len();
            chunk.retain(&keep);
            out += before - chunk.len();
        }
        out
    }

    pub(crate) fn last(&self) -> Option<&T> {
        self.rest.back().or_else(|| self.chunks.back()?.back())
    }
}

#[cfg(all(test, not(backplane_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_first_comes_out_first() {
        let mut queue = Queue::default();
        let (mut put, mut got) = (0, 0);
        for round in 0..2_000 {
            for _ in 0..round % 7 {
                queue.push(put);
                put += 1;
            }
            for _ in 0..round % 5 {
                if let Some(item) = queue.pop() {
                    assert_eq!(item, got);
                    got += 1;
                }
            }
        }
        assert!(put > got + 2 * CHUNK);
        while let Some(item) = queue.pop() {
            assert_eq!(item, got);
            got += 1;
        }
        assert_eq!(put, got);
        assert!(queue.is_empty());
    }
}
