"""From causes and circumstances to one trigger, and what people are asked when labels are missing."""
