//! Logits, log-likelihoods and generations against transformers, PEFT and AdapterHub.
