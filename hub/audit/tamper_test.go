package audit

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"tripod.dev/tripod/hub/api/audittrail"
)

// tampered is a copy of the files with one of them changed.
func tampered(text map[string]string, name string, lines []string) map[string]string {
	copied := maps.Clone(text)
	copied[name] = strings.Join(lines, "")
	return copied
}

func without(lines []string, i int) []string {
	return append(append([]string{}, lines[:i]...), lines[i+1:]...)
}

// TestEveryTamperingIsFound does everything that a person with an editor can do
// with one record, to each record of a log.
func TestEveryTamperingIsFound(t *testing.T) {
	r := longLog(t)
	names, text := r.content()
	head := r.log.Head()
	chance := rand.New(rand.NewPCG(1, 2))
	tried := 0
	found := func(what string, changed map[string]string, heads ...audittrail.Head) {
		t.Helper()
		tried++
		if verify(t, changed, heads...).Good() {
			t.Errorf("%s was not found", what)
		}
	}
	for f, name := range names {
		lines := strings.SplitAfter(strings.TrimSuffix(text[name], "\n"), "\n")
		lines[len(lines)-1] += "\n"
		for i := range lines {
			where := fmt.Sprintf("in file %d, line %d of %d", f+1, i+1, len(lines))
			last := f == len(names)-1 && i == len(lines)-1
			for range 4 {
				at := chance.IntN(len(lines[i]) - 1)
				edited := []byte(lines[i])
				edited[at] ^= byte(1 << chance.IntN(7))
				changed := append([]string{}, lines...)
				changed[i] = string(edited)
				found(fmt.Sprintf("a byte edited %s, column %d", where, at), tampered(text, name, changed))
			}
			if !last { // what is cut off at the end is found by the published head, below
				found("a record removed "+where, tampered(text, name, without(lines, i)))
			}
			if i+1 < len(lines) {
				changed := append([]string{}, lines...)
				changed[i], changed[i+1] = changed[i+1], changed[i]
				found("two records swapped "+where, tampered(text, name, changed))
			}
			repeated := append(append(append([]string{}, lines[:i+1]...), lines[i]), lines[i+1:]...)
			found("a record repeated "+where, tampered(text, name, repeated))
			cut := lines[i][:1+chance.IntN(len(lines[i])-2)]
			found("a record cut off "+where, tampered(text, name, append(append([]string{}, lines[:i]...), cut)))
			if last {
				continue // the last mark itself: all that it vouches for is there
			}
			found("the end cut off "+where, tampered(text, name, lines[:i]), head)
		}
		if f > 0 && f < len(names)-1 {
			gone := maps.Clone(text)
			delete(gone, name)
			found(fmt.Sprintf("file %d removed", f+1), gone)
		}
	}
	gone := maps.Clone(text)
	delete(gone, names[len(names)-1])
	found("the last file removed", gone, head)
	t.Logf("%d ways of tampering", tried)
}

func TestTheProblemNamesTheRecord(t *testing.T) {
	r := newRig(t, 1<<20)
	r.write(6)
	r.log.Shutdown()
	_, all := r.content()
	text := all[r.path]
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	replace := func(i int, old, new string) []string {
		changed := append([]string{}, lines...)
		changed[i] = strings.Replace(changed[i], old, new, 1)
		return changed
	}
	for name, c := range map[string]struct {
		lines []string
		heads []audittrail.Head
		want  string
	}{
		"edited":    {replace(2, "ann", "bob"), nil, "audit.log:3: record 3 does not have the hash that record 4 names: it was edited"},
		"removed":   {without(lines, 2), nil, "audit.log:3: record 3 is missing before this one"},
		"truncated": {lines[:5], []audittrail.Head{r.log.Head()}, "records 6 to 9 are missing after this one: the hub has published a head for them"},
		"forged mark": {replace(4, `trail.tripod.dev/mark":"sign`, `trail.tripod.dev/mark":"begin`), nil,
			"audit.log:5: the line is no record: it is a mark, but not as the hub writes one"},
	} {
		t.Run(name, func(t *testing.T) {
			got := complaints(verify(t, map[string]string{r.path: strings.Join(c.lines, "")}, c.heads...))
			if !strings.Contains(got, c.want) {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
		})
	}
}

// TestAnotherHubsSignatureIsNone: whoever writes a whole new log needs the key.
func TestAnotherHubsSignatureIsNone(t *testing.T) {
	r := newRig(t, 1<<20)
	r.log.config.Key = append([]byte{}, key...)
	r.log.config.Key[3] ^= 1
	r.write(3)
	r.log.Shutdown()
	_, text := r.content()
	if got := complaints(verify(t, text)); !strings.Contains(got, "its signature is not the hub's") {
		t.Errorf("got %q", got)
	}
	head := r.log.Head()
	if got := complaints(verify(t, text, head)); !strings.Contains(got, "ConfigMap audit-heads") {
		t.Errorf("got %q", got)
	}
}

// TestALogWrittenAnewWithTheHubsKeyIsFound: who has a member's disk has the key, and
// can write a log that fits itself. The head in the hub's store does not fit.
func TestALogWrittenAnewWithTheHubsKeyIsFound(t *testing.T) {
	r := newRig(t, 1<<20)
	r.write(2)
	r.log.Shutdown()
	head := r.log.Head()
	_, all := r.content()
	events := strings.Split(all[r.path], "\n")[1:3]

	var text strings.Builder
	sequence, previous := uint64(0), audittrail.Genesis(head.Member, head.Trail)
	put := func(line []byte, hash string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		text.Write(line)
		sequence, previous = sequence+1, hash
	}
	mark := func(why audittrail.Mark) {
		put(audittrail.Head{Member: head.Member, Trail: head.Trail, Mark: why, Sequence: sequence + 1, Previous: previous, At: r.now}.SignWith(key).Line())
	}
	mark(audittrail.Begin)
	for _, event := range events {
		plain, _, _ := strings.Cut(event, `,"`+audittrail.AnnotationSequence)
		put(audittrail.Chain([]byte(strings.Replace(plain, "ann", "bob", 1)+"}}"), sequence+1, previous))
	}
	mark(audittrail.End)
	forged := map[string]string{r.path: text.String()}
	if result := verify(t, forged); !result.Good() {
		t.Fatalf("the forgery does not fit itself: %s", complaints(result))
	}
	if got := complaints(verify(t, forged, head)); !strings.Contains(got, "is not the one whose head the hub has published") {
		t.Errorf("got %q", got)
	}
}
