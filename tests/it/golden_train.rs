//! Training trajectories against PEFT and AdapterHub.
