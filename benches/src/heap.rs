//! A heap in which other things live.
//!
//! What an allocation costs depends on what was allocated and freed before: in a process that has just begun a block may
//! come from the untouched end of the heap for ten nanoseconds, in another from a search for a hundred. Left to chance, a
//! side that allocates gets a different price in every run. So every run is measured in a heap that has been used,
//! and between batches it is used some more: the medians are over many states of it.

use std::hint::black_box;

/// Blocks of many sizes that come and go.
#[derive(Debug)]
pub struct Heap {
    blocks: Vec<Option<Vec<u8>>>,
    seed: u64,
}

/// So many blocks may live at one time; at any time half of them do.
const BLOCKS: usize = 20_000;

impl Heap {
    /// A heap that has never been used, as in a program of which the benchmark is all.
    pub fn fresh() -> Heap {
        Heap { blocks: Vec::new(), seed: 1 }
    }

    /// A heap that has been used for a while.
    pub fn used() -> Heap {
        let mut heap = Heap { blocks: (0..BLOCKS).map(|_| None).collect(), seed: 1 };
        heap.turn_over(10 * BLOCKS);
        heap
    }

    /// Uses it some more.
    pub fn stir(&mut self) {
        self.turn_over(200);
    }

    /// So many times, somewhere: what lives there goes, or what was not there comes.
    fn turn_over(&mut self, times: usize) {
        if self.blocks.is_empty() {
            return;
        }
        for _ in 0..times {
            let place = self.random() as usize % self.blocks.len();
            self.blocks[place] = match self.blocks[place].take() {
                Some(_) => None,
                None => {
                    // As many between 16 and 32 bytes as between 1,024 and 2,048.
                    let doubling = 16_usize << (self.random() % 7);
                    let size = doubling + self.random() as usize % doubling;
                    Some(black_box(Vec::with_capacity(size)))
                }
            };
        }
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }
}
