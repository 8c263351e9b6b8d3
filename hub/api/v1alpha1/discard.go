package v1alpha1

import (
	"fmt"
	"strconv"
	"strings"
)

const discardPrefix = "discard"

// Discard is a diverged copy that a person may approve to be copied anew from
// the primary of Epoch. What it held is kept aside.
type Discard struct {
	Namespace, Dataset, Cluster string
	Epoch                       int64
}

// Subject is what an Approval of it names in spec.run.
func (d Discard) Subject() string {
	return fmt.Sprintf("%s.%s.%s.%s.%d", discardPrefix, d.Namespace, d.Dataset, d.Cluster, d.Epoch)
}

// ParseDiscard reads a Subject; ok is false for anything else, such as the name
// of a run. A dataset's name may hold dots; the other parts cannot.
func ParseDiscard(subject string) (d Discard, ok bool) {
	parts := strings.Split(subject, ".")
	last := len(parts) - 1
	if last < 4 || parts[0] != discardPrefix {
		return Discard{}, false
	}
	epoch, err := strconv.ParseInt(parts[last], 10, 64)
	if err != nil {
		return Discard{}, false
	}
	return Discard{Namespace: parts[1], Dataset: strings.Join(parts[2:last-1], "."), Cluster: parts[last-1], Epoch: epoch}, true
}
