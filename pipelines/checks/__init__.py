"""What ``kfloop check`` looks at: rooms of components, loop files, and compiled pipelines, kfloop's own or anybody's."""
