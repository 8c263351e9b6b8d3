// Package evidence is the tamper-evident account of a run (invariant I7): a
// chain of records, each with the hash of the one before, whose last hash is
// signed by the hub. Whoever has the records and the hub's certificate can
// verify them and recompute RTO and RPO without the hub.
package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Record is one fact: an observation that was used, a decision, an approval, a
// command or a result.
type Record struct {
	Sequence int `json:"sequence"` // from 1
	// Previous is the hash of the record before, or Genesis of the run.
	Previous string `json:"previous"`
	Run      string `json:"run"`
	Kind     string `json:"kind"`
	Subject  string `json:"subject"`
	Text     string `json:"text"`
	Mark     string `json:"mark,omitempty"`
	// At is wall time, for people.
	At time.Time `json:"at"`
	// SinceHeardMicros is the age of the lost side's last renewal, on the
	// monotonic clock of the hub member By.
	SinceHeardMicros int64  `json:"sinceHeardMicros,omitempty"`
	By               string `json:"by"`
	// Hash is of the canonical JSON of the record with an empty Hash.
	Hash string `json:"hash"`
}

// Genesis is what the first record of a run names as its previous one: a
// chain cannot be passed off as another run's.
func Genesis(run string) string {
	return digest([]byte("tripod evidence of " + run))
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// hash is over the record's canonical form: encoding/json writes a struct's
// fields in their declared order and without insignificant space, and times in
// UTC to the microsecond, so that one record has one form.
func (r Record) hash() string {
	r.Hash = ""
	b, err := json.Marshal(r)
	if err != nil {
		panic(fmt.Sprintf("evidence record %d has no canonical form: %v", r.Sequence, err)) // strings, ints and a time always have one
	}
	return digest(b)
}

// Append adds a record to the chain of run; it sets Sequence, Previous and Hash.
func Append(chain []Record, run string, r Record) []Record {
	return append(chain[:len(chain):len(chain)], Link(run, Head(chain, run), len(chain)+1, r))
}

// Link makes r the record of run with that sequence, behind the one whose hash is
// previous.
func Link(run, previous string, sequence int, r Record) Record {
	r.Run, r.Sequence, r.Previous = run, sequence, previous
	r.At = r.At.UTC().Truncate(time.Microsecond)
	r.Hash = r.hash()
	return r
}

// Join is the chain of run of which archived holds the beginning and recent the end.
// They may overlap, where they must be the same. It fails with a *BadRecord.
func Join(run string, archived, recent []Record) ([]Record, error) {
	if len(recent) == 0 {
		return archived, nil
	}
	first := recent[0].Sequence - 1
	if first < 0 || first > len(archived) {
		return nil, &BadRecord{Run: run, Sequence: len(archived) + 1, Reason: fmt.Sprintf("is missing: what was not archived begins with record %d", first+1)}
	}
	for i, r := range archived[first:] {
		if i == len(recent) {
			return nil, &BadRecord{Run: run, Sequence: first + i + 1, Reason: "is archived, but the run does not know it"}
		}
		if r.Hash != recent[i].Hash || r.hash() != recent[i].hash() {
			return nil, &BadRecord{Run: run, Sequence: first + i + 1, Reason: "is archived otherwise than the run's journal says"}
		}
	}
	return slices.Concat(archived[:first], recent), nil
}

// Head is the hash that stands for the whole chain.
func Head(chain []Record, run string) string {
	if len(chain) == 0 {
		return Genesis(run)
	}
	return chain[len(chain)-1].Hash
}

// BadRecord says which record breaks a chain, and how.
type BadRecord struct {
	Run      string
	Sequence int // position in the chain, from 1
	Reason   string
}

func (e *BadRecord) Error() string {
	return fmt.Sprintf("evidence of run %s: record %d %s: it or its neighbour was edited after it was written", e.Run, e.Sequence, e.Reason)
}

// Verify checks a chain up to head and returns a *BadRecord for the first record
// that does not fit.
func Verify(chain []Record, run, head string) error {
	previous := Genesis(run)
	for i, r := range chain {
		bad := func(reason string) error { return &BadRecord{Run: run, Sequence: i + 1, Reason: reason} }
		switch {
		case r.Run != run:
			return bad("belongs to run " + r.Run)
		case r.Sequence != i+1:
			return bad(fmt.Sprintf("is numbered %d", r.Sequence))
		case r.Previous != previous:
			return bad("does not name the hash of the record before it")
		case r.Hash != r.hash():
			return bad("does not have the hash that it states")
		}
		previous = r.Hash
	}
	if head != "" && previous != head {
		return &BadRecord{Run: run, Sequence: len(chain) + 1, Reason: "is missing or is not the one that was signed (head " + head + ")"}
	}
	return nil
}

// Encode writes a chain as JSON lines.
func Encode(chain []Record) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, r := range chain {
		if err := enc.Encode(r); err != nil {
			return nil, fmt.Errorf("encode evidence record %d: %w", r.Sequence, err)
		}
	}
	return out.Bytes(), nil
}

// Decode reads JSON lines.
func Decode(lines []byte) ([]Record, error) {
	dec := json.NewDecoder(bytes.NewReader(lines))
	dec.DisallowUnknownFields()
	var chain []Record
	for dec.More() {
		var r Record
		if err := dec.Decode(&r); err != nil {
			return nil, fmt.Errorf("decode evidence record %d: %w", len(chain)+1, err)
		}
		chain = append(chain, r)
	}
	return chain, nil
}
