//! TERRa and Nerus: formats, prompts, answers, bad rows.
