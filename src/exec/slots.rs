//! What of the machine steps may use at once, and who goes next: cores, memory, GPUs by number.
//! It does not know threads: their number does not depend on slots.

use std::collections::BTreeMap;

use crate::step::Share;

/// What of the machine all running steps together may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Slots for cores (`-j`), at least one.
    pub cpu: usize,
    /// Bytes of memory; `None` counts none.
    pub memory: Option<u64>,
    /// The numbers of the GPUs.
    pub gpus: Vec<usize>,
}

impl Capacity {
    /// So many slots, memory that is not counted, and no GPU.
    pub fn slots(cpu: usize) -> Self {
        Self { cpu: cpu.max(1), memory: None, gpus: Vec::new() }
    }
}

/// What a step takes while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Need {
    pub cpu: usize,
    pub memory: u64,
    pub gpus: usize,
}

impl Need {
    /// The part of the slots that a share is.
    pub fn cpu_of(share: Share, capacity: &Capacity) -> usize {
        match share {
            Share::One => 1,
            Share::Half => (capacity.cpu / 2).max(1),
            Share::All => capacity.cpu.max(1),
        }
    }

    /// The same, but no more than there is: a step that asks for more than the machine has runs alone.
    pub fn within(self, capacity: &Capacity) -> Self {
        Self {
            cpu: self.cpu.min(capacity.cpu),
            memory: capacity.memory.map_or(0, |all| self.memory.min(all)),
            gpus: self.gpus,
        }
    }
}

/// What a running step has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Grant {
    pub cpu: usize,
    pub memory: u64,
    pub gpus: Vec<usize>,
}

/// Who goes first: the longest way to the end, then the order of the graph.
pub(super) type Rank = (std::cmp::Reverse<u64>, usize);

/// So many steps that have to wait are passed by in search of one that does not.
const LOOK: usize = 32;

/// What is free.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    cpu: usize,
    memory: u64,
    gpus: Vec<usize>,
}

impl Slots {
    pub fn of(capacity: &Capacity) -> Self {
        Self { cpu: capacity.cpu, memory: capacity.memory.unwrap_or_default(), gpus: capacity.gpus.clone() }
    }

    /// The first step that can start, with what it gets. A step that has to wait keeps what is free and what it needs
    /// from all that come after it, so that it is not put off for ever; what it does not need they may have.
    pub fn next(&mut self, ready: &BTreeMap<Rank, usize>, need: impl Fn(usize) -> Need) -> Option<(Rank, Grant)> {
        let (mut cpu, mut memory, mut gpus) = (self.cpu, self.memory, self.gpus.len());
        for (&rank, &step) in ready.iter().take(LOOK) {
            let need = need(step);
            if need.cpu <= cpu && need.memory <= memory && need.gpus <= gpus {
                self.cpu -= need.cpu;
                self.memory -= need.memory;
                let grant = Grant { cpu: need.cpu, memory: need.memory, gpus: self.gpus.drain(..need.gpus).collect() };
                return Some((rank, grant));
            }
            cpu -= need.cpu.min(cpu);
            memory -= need.memory.min(memory);
            gpus -= need.gpus.min(gpus);
            if cpu == 0 {
                break;
            }
        }
        None
    }

    /// For how many steps with such a need there is room now.
    pub fn room(&self, need: Need) -> usize {
        let of = |there: usize, each: usize| there.checked_div(each).unwrap_or(usize::MAX);
        let by_memory = self.memory.checked_div(need.memory).unwrap_or(u64::MAX);
        of(self.cpu, need.cpu).min(of(self.gpus.len(), need.gpus)).min(usize::try_from(by_memory).unwrap_or(usize::MAX))
    }

    /// Takes back what a step had.
    pub fn give_back(&mut self, grant: Grant) {
        self.cpu += grant.cpu;
        self.memory += grant.memory;
        self.gpus.extend(grant.gpus);
        self.gpus.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;
    use std::collections::BTreeSet;

    use crate::step::Machine;

    #[test]
    fn every_share_fits_into_any_number_of_slots() {
        for cpu in 1..9 {
            let capacity = Capacity::slots(cpu);
            for share in [Share::One, Share::Half, Share::All] {
                assert!((1..=cpu).contains(&Need::cpu_of(share, &capacity)));
            }
        }
        let eight = Capacity::slots(8);
        assert_eq!((Need::cpu_of(Share::Half, &eight), Need::cpu_of(Share::All, &eight)), (4, 8));
    }

    fn machine(cores: usize) -> Machine {
        Machine::plain("cpu", cores)
    }

    /// Two trainings beside each other, each on half of the cores, were measured to be faster than one after the other
    /// on all of them; threads without a core of their own wait for each other.
    #[test]
    fn who_runs_beside_others_has_cores_of_its_own() {
        for cores in 1..=33 {
            let (machine, capacity) = (machine(cores), Capacity::slots(cores));
            for shares in [[Share::Half; 40], [Share::One; 40]] {
                let needs = shares.map(|share| Need { cpu: Need::cpu_of(share, &capacity), ..Need::default() });
                let beside = started(&mut Slots::of(&capacity), &needs).len();
                let threads = beside * machine.threads(shares[0]);
                assert!(threads <= cores && threads + machine.threads(shares[0]) > cores, "{cores}: {threads}");
            }
            let all = Need { cpu: Need::cpu_of(Share::All, &capacity), ..Need::default() };
            let half = Need { cpu: Need::cpu_of(Share::Half, &capacity), ..Need::default() };
            assert_eq!(started(&mut Slots::of(&capacity), &[all, half]), [0], "{cores}");
        }
        let two = Need { cpu: Need::cpu_of(Share::Half, &Capacity::slots(2)), ..Need::default() };
        assert_eq!(started(&mut Slots::of(&Capacity::slots(2)), &[two, two]), [0, 1]);
    }

    fn started(slots: &mut Slots, needs: &[Need]) -> Vec<usize> {
        let mut ready: BTreeMap<Rank, usize> = (0..needs.len()).map(|step| ((Reverse(0), step), step)).collect();
        let mut started = Vec::new();
        while let Some((rank, _)) = slots.next(&ready, |step| needs[step]) {
            started.push(ready.remove(&rank).unwrap());
        }
        started
    }

    #[test]
    fn who_waits_is_overtaken_only_by_those_who_take_nothing_of_it() {
        let capacity = Capacity { cpu: 4, memory: Some(10), gpus: vec![0, 1] };
        let need = |cpu, memory, gpus| Need { cpu, memory, gpus };
        // The second waits for a GPU and keeps two cores for itself; one is left for the third, and none for the last.
        let mut slots = Slots::of(&capacity);
        assert_eq!(started(&mut slots, &[need(1, 0, 1), need(2, 0, 2), need(1, 0, 0), need(1, 0, 0)]), [0, 2]);
        // Whoever wants the whole machine is not put off by small ones.
        let mut slots = Slots::of(&capacity);
        assert_eq!(started(&mut slots, &[need(1, 0, 0), need(4, 0, 0), need(1, 0, 0)]), [0]);
        // Memory counts like the rest.
        let mut slots = Slots::of(&capacity);
        assert_eq!(started(&mut slots, &[need(1, 6, 0), need(1, 6, 0), need(1, 4, 0), need(1, 0, 0)]), [0, 3]);
    }

    #[test]
    fn room_is_what_the_scarcest_thing_leaves() {
        let slots = Slots::of(&Capacity { cpu: 4, memory: Some(10), gpus: vec![0, 1] });
        let room = |cpu, memory, gpus| slots.room(Need { cpu, memory, gpus });
        assert_eq!([room(1, 0, 0), room(3, 0, 0), room(1, 4, 0), room(1, 4, 1), room(1, 0, 3)], [4, 1, 2, 2, 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        /// Steps come one after the other and end in any order.
        #[test]
        fn nothing_is_given_twice_and_everybody_gets_on(
            cpu in 1usize..5,
            memory in 0u64..10,
            gpus in 0usize..4,
            needs in prop::collection::vec((1usize..7, 0u64..14, 0usize..4), 1..60),
            ends in prop::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let capacity = Capacity { cpu, memory: Some(memory), gpus: (0..gpus).collect() };
            let need = |step: usize| {
                let (cpu, memory, wanted) = needs[step];
                Need { cpu, memory, gpus: wanted.min(gpus) }.within(&capacity)
            };
            let whole = Slots::of(&capacity);
            let mut slots = whole.clone();
            let (mut ready, mut running, mut seen) = (BTreeMap::new(), Vec::<(usize, Grant)>::new(), BTreeSet::new());
            for step in 0..needs.len() {
                ready.insert((Reverse(0), step), step);
            }
            for end in &ends {
                while let Some((rank, grant)) = slots.next(&ready, need) {
                    let Some(step) = ready.remove(&rank) else { panic!("only who is ready starts") };
                    prop_assert!(seen.insert(step), "{step} starts twice");
                    let asked = need(step);
                    prop_assert_eq!((grant.cpu, grant.memory, grant.gpus.len()), (asked.cpu, asked.memory, asked.gpus));
                    running.push((step, grant));
                    prop_assert!(running.iter().map(|(_, grant)| grant.cpu).sum::<usize>() <= cpu);
                    prop_assert!(running.iter().map(|(_, grant)| grant.memory).sum::<u64>() <= memory);
                    let given: Vec<usize> = running.iter().flat_map(|(_, grant)| grant.gpus.clone()).collect();
                    prop_assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "a GPU is given twice");
                }
                if running.is_empty() {
                    break;
                }
                let (_, grant) = running.swap_remove(end.index(running.len()));
                slots.give_back(grant);
            }
            prop_assert_eq!(seen.len(), needs.len(), "somebody never started");
            for (_, grant) in running {
                slots.give_back(grant);
            }
            prop_assert_eq!((slots.cpu, slots.memory, slots.gpus), (whole.cpu, whole.memory, whole.gpus));
        }
    }
}
