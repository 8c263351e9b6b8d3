package audittrail

import (
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// File is one file of a log.
type File struct {
	Name string
	Open func() (io.ReadCloser, error)
}

// Problem is one place where a log is not as it was written.
type Problem struct {
	File string `json:"file"`
	// Line counts from 1; 0 is the file as a whole.
	Line   int    `json:"line,omitempty"`
	Reason string `json:"reason"`
}

func (p Problem) String() string {
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", p.File, p.Reason)
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Reason)
}

// Trail is what was found of one chain.
type Trail struct {
	Member string   `json:"member"`
	Trail  string   `json:"trail"`
	Files  []string `json:"files"`
	// First and Last are the numbers of the first and the last record.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Head is the hash of the last record.
	Head string `json:"head"`
	// Signed is the last record that a good signature vouches for, and SignedAt
	// when that was.
	Signed   uint64    `json:"signed"`
	SignedAt time.Time `json:"signedAt"`
	// Ended says that the last file was ended in order: nothing follows.
	Ended bool `json:"ended"`
	// Published is the last record that a head in the hub's store vouches for; 0 if
	// there is none.
	Published uint64    `json:"published"`
	Problems  []Problem `json:"problems,omitempty"`
}

func (t *Trail) add(file string, line int, format string, args ...any) {
	t.Problems = append(t.Problems, Problem{File: file, Line: line, Reason: fmt.Sprintf(format, args...)})
}

// Result is what Verify found. Problems are of files that belong to no trail.
type Result struct {
	Trails   []*Trail  `json:"trails"`
	Problems []Problem `json:"problems,omitempty"`
}

// Good says that nothing was edited, removed, reordered or cut off, as far as the
// signatures reach.
func (r Result) Good() bool {
	return len(r.Problems) == 0 && !slices.ContainsFunc(r.Trails, func(t *Trail) bool { return len(t.Problems) > 0 })
}

// Verify reads the files of one or more logs, in any order, and compares them with
// each other, with the hub's signatures, and with the heads that the hub has
// published (by Head.Key; nil compares with none, and then records cut off from
// the end are found only back to the last signature in the files). Records before
// the oldest file are not missed: rotation deletes files. The error is of reading,
// never of what was read.
func Verify(files []File, public ed25519.PublicKey, published map[string]Head) (Result, error) {
	var result Result
	trails := map[string][]opening{}
	for _, file := range files {
		opened, problem, err := openingOf(file)
		if err != nil {
			return Result{}, err
		}
		if problem != nil {
			result.Problems = append(result.Problems, *problem)
			continue
		}
		trails[opened.head.Key()] = append(trails[opened.head.Key()], opened)
	}
	for _, key := range slices.Sorted(maps.Keys(trails)) {
		openings := trails[key]
		slices.SortStableFunc(openings, func(a, b opening) int { return cmp.Compare(a.head.Sequence, b.head.Sequence) })
		first := openings[0].head
		w := walk{public: public, trail: &Trail{Member: first.Member, Trail: first.Trail, First: first.Sequence}}
		if head, ok := published[key]; ok {
			w.expect(head)
		}
		w.sequence, w.hash = first.Sequence-1, first.Previous
		if first.Sequence == 1 && first.Previous != Genesis(first.Member, first.Trail) {
			w.trail.add(openings[0].file.Name, 1, "the trail does not begin as one of %s does", first.Key())
		}
		for _, o := range openings {
			if err := w.file(o.file); err != nil {
				return Result{}, err
			}
		}
		w.end()
		result.Trails = append(result.Trails, w.trail)
	}
	return result, nil
}

// opening is a file with the mark that it begins with.
type opening struct {
	file File
	head Head
}

func openingOf(file File) (opening, *Problem, error) {
	lines, err := openLines(file)
	if err != nil {
		return opening{}, nil, err
	}
	defer lines.close()
	line, _, err := lines.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return opening{}, nil, err
	}
	problem := &Problem{File: file.Name, Line: 1}
	if len(line) == 0 {
		problem.Reason = "the file is empty: every file begins with a mark"
		return opening{}, problem, nil
	}
	r, err := parse(line)
	switch {
	case err != nil:
		problem.Reason = fmt.Sprintf("the file does not begin with a mark: %v", err)
	case r.head == nil || r.head.Mark != Begin:
		problem.Reason = fmt.Sprintf("the file does not begin with a mark but with record %d: what stood before it was removed", r.sequence)
	default:
		return opening{file, *r.head}, nil, nil
	}
	return opening{}, problem, nil
}
