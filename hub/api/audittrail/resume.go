package audittrail

import (
	"errors"
	"fmt"
	"io"
)

// Position is where a log goes on.
type Position struct {
	Member, Trail string
	// Sequence and Hash are the last record's.
	Sequence uint64
	Hash     string
	// Torn is the hash of what stands behind the last record and is none: the
	// member died while it wrote. Empty is nothing. Open is true when the last line, whatever it is,
	// has no line feed.
	Torn string
	Open bool
}

// ErrNoTrail says that a file does not begin as a log does.
var ErrNoTrail = errors.New("it is no file of a chained audit log")

// resumeWindow is how much of a file's end is read; one record is smaller.
const resumeWindow = 8 << 20

// Resume reads where the log goes on that ends with this file.
func Resume(name string, file io.ReadSeeker) (Position, error) {
	source := File{Name: name, Open: func() (io.ReadCloser, error) { return io.NopCloser(file), nil }}
	opened, problem, err := openingOf(source)
	if err != nil {
		return Position{}, err
	}
	if problem != nil {
		return Position{}, fmt.Errorf("%w: %s", ErrNoTrail, problem)
	}
	position := Position{Member: opened.head.Member, Trail: opened.head.Trail}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return Position{}, fmt.Errorf("read %s: %w", name, err)
	}
	for _, from := range []int64{max(0, size-resumeWindow), 0} {
		if _, err := file.Seek(from, io.SeekStart); err != nil {
			return Position{}, fmt.Errorf("read %s: %w", name, err)
		}
		if err := position.readTo(source); err != nil {
			return Position{}, err
		}
		if position.Sequence > 0 {
			return position, nil
		}
	}
	return Position{}, fmt.Errorf("%w: %s", ErrNoTrail, name)
}

// readTo reads to the end of the file, from wherever it stands.
func (p *Position) readTo(source File) error {
	lines, err := openLines(source)
	if err != nil {
		return err
	}
	for {
		line, whole, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p.Open = !whole
		r, err := parse(line)
		if err != nil {
			p.Torn = Hash(line)
			continue
		}
		p.Sequence, p.Hash, p.Torn = r.sequence, Hash(line), ""
	}
}
