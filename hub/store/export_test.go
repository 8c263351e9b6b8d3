package store

import raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"

// StartIncarnation is what founding writes; a running hub never does.
func StartIncarnation(n uint64, reason string) Op {
	return startIncarnation(&raftlogv1.StartIncarnation{Incarnation: n, Reason: reason})
}
