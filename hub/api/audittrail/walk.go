package audittrail

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
)

// walk goes over a trail, record by record.
type walk struct {
	public ed25519.PublicKey
	trail  *Trail

	// The last record: its number, its hash and its place.
	sequence uint64
	hash     string
	at       place

	// odd is a line that is no record. It must be the torn one of the mark that
	// follows.
	odd    *place
	hashed string
	reason string

	published *Head
	met       bool
}

// place is a line of a file.
type place struct {
	file string
	line int
}

// expect compares with a head that the hub has published.
func (w *walk) expect(head Head) {
	if err := head.Verify(w.public); err != nil {
		w.trail.add("ConfigMap "+ConfigMap, 0, "the head of %s: %v", head.Key(), err)
		return
	}
	w.published, w.trail.Published = &head, head.Sequence-1
}

func (w *walk) file(file File) error {
	w.trail.Files = append(w.trail.Files, file.Name)
	w.trail.Ended = false
	lines, err := openLines(file)
	if err != nil {
		return err
	}
	defer lines.close()
	for number := 1; ; number++ {
		line, whole, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		here := place{file: file.Name, line: number}
		r, err := parse(line)
		if err == nil && !whole {
			err = errors.New("it has no end")
		}
		if err != nil {
			w.unreadable(here, Hash(line), err)
			continue
		}
		w.record(here, r, Hash(line))
	}
}

func (w *walk) unreadable(here place, hash string, err error) {
	w.settle("")
	w.odd, w.hashed, w.reason = &here, hash, err.Error()
}

// settle judges a line that was no record by what the mark after it says of a torn
// line.
func (w *walk) settle(torn string) {
	odd := w.odd
	w.odd = nil
	switch {
	case odd != nil && w.hashed != torn:
		w.trail.add(odd.file, odd.line, "the line is no record: %s", w.reason)
	case odd == nil && torn != "":
		w.trail.add(w.at.file, w.at.line, "the line that was cut off when the member died was removed after this record")
	}
}

func (w *walk) record(here place, r record, hash string) {
	torn := ""
	if r.head != nil {
		torn = r.head.Torn
	}
	w.settle(torn)
	w.link(here, r)
	if here.line == 1 && (r.head == nil || r.head.Mark != Begin) {
		w.trail.add(here.file, here.line, "the file does not begin with a mark")
	}
	if w.trail.Ended && (r.head == nil || r.head.Mark != Begin) {
		w.trail.add(here.file, here.line, "record %d stands after the mark that ended the file", r.sequence)
	}
	w.trail.Ended = false
	if r.head != nil {
		w.vouch(here, *r.head)
	}
	if w.published != nil && r.sequence == w.published.Sequence-1 {
		w.met = true
		if hash != w.published.Previous {
			w.trail.add(here.file, here.line, "record %d is not the one whose head the hub has published: it, or one before it, was replaced", r.sequence)
		}
	}
	w.sequence, w.hash, w.at = r.sequence, hash, here
}

// link checks that a record follows the last one.
func (w *walk) link(here place, r record) {
	switch {
	case r.sequence <= w.sequence:
		w.trail.add(here.file, here.line, "record %d stands after record %d: it was moved or repeated", r.sequence, w.sequence)
	case r.sequence == w.sequence+2:
		w.trail.add(here.file, here.line, "record %d is missing before this one", w.sequence+1)
	case r.sequence > w.sequence+1:
		w.trail.add(here.file, here.line, "records %d to %d are missing before this one", w.sequence+1, r.sequence-1)
	case r.previous != w.hash:
		w.trail.add(w.at.file, w.at.line, "record %d does not have the hash that record %d names: it was edited after it was written", w.sequence, r.sequence)
	}
}

// vouch takes note of a mark.
func (w *walk) vouch(here place, head Head) {
	if head.Member != w.trail.Member || head.Trail != w.trail.Trail {
		w.trail.add(here.file, here.line, "the mark %d is of the trail %s, not of %s.%s", head.Sequence, head.Key(), w.trail.Member, w.trail.Trail)
		return
	}
	if err := head.Verify(w.public); err != nil {
		w.trail.add(here.file, here.line, "the mark %d: %v", head.Sequence, err)
		return
	}
	// A mark has one form, so that its signature vouches for itself as well.
	w.trail.Signed, w.trail.SignedAt = head.Sequence, head.At
	w.trail.Ended = head.Mark == End
}

func (w *walk) end() {
	w.settle("")
	w.trail.Last, w.trail.Head = w.sequence, w.hash
	if w.published == nil || w.met {
		return
	}
	if last := w.published.Sequence - 1; last > w.sequence {
		w.trail.add(w.at.file, w.at.line, "records %d to %d are missing after this one: the hub has published a head for them (%s)",
			w.sequence+1, last, w.published.At.Format("2006-01-02 15:04:05"))
	} else if last >= w.trail.First {
		w.trail.add(w.at.file, 0, "record %d, whose head the hub has published, is missing", last)
	}
}

// lines reads a file line by line.
type lines struct {
	name   string
	source io.ReadCloser
	reader *bufio.Reader
}

func openLines(file File) (*lines, error) {
	source, err := file.Open()
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", file.Name, err)
	}
	return &lines{name: file.Name, source: source, reader: bufio.NewReaderSize(source, 1<<20)}, nil
}

// next returns a line without its line feed, and whether it had one; after the
// last one io.EOF.
func (l *lines) next() (line []byte, whole bool, err error) {
	line, err = l.reader.ReadBytes('\n')
	if errors.Is(err, io.EOF) && len(line) > 0 {
		return line, false, nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false, fmt.Errorf("read %s: %w", l.name, err)
	}
	return bytes.TrimSuffix(line, []byte("\n")), true, err
}

func (l *lines) close() { _ = l.source.Close() } // it was read only
