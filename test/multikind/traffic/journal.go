package traffic

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Event is what happened to a transfer, from its client's point of view.
type Event string

// Events of a transfer.
const (
	// Sent is written before the first byte leaves.
	Sent Event = "sent"
	// Acknowledged is written after the database confirmed the commit.
	Acknowledged Event = "acknowledged"
	// Refused is written when the transfer surely did not happen.
	Refused Event = "refused"
	// Unknown is written when the client cannot tell: it may have happened.
	Unknown Event = "unknown"
)

// Record is one line of a journal.
type Record struct {
	// Monotonic is CLOCK_MONOTONIC in nanoseconds, comparable with the times
	// that multikind prints for faults on the same machine.
	Monotonic int64  `json:"t"`
	Event     Event  `json:"event"`
	ID        string `json:"id"`
	From      int    `json:"from,omitempty"`
	To        int    `json:"to,omitempty"`
	Amount    int64  `json:"amount,omitempty"`
	// Timeline of the PostgreSQL that accepted an acknowledged transfer.
	Timeline int64  `json:"timeline,omitempty"`
	Server   string `json:"server,omitempty"`
	Error    string `json:"error,omitempty"`
}

// Monotonic returns CLOCK_MONOTONIC in nanoseconds.
func Monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(fmt.Sprintf("read CLOCK_MONOTONIC: %v", err))
	}
	return ts.Nano()
}

// Since returns the time from a Monotonic reading until now.
func Since(t int64) time.Duration { return time.Duration(Monotonic() - t) }

// journal appends records to one file. Each record reaches the kernel before
// append returns, so that it survives the death of the client process.
type journal struct {
	mu   sync.Mutex
	file *os.File
}

func openJournal(dir, name string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the journal folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name+".jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return &journal{file: f}, nil
}

func (j *journal) append(r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode a journal record: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write the journal %s: %w", j.file.Name(), err)
	}
	return nil
}

func (j *journal) close() error { return j.file.Close() }

// ReadJournals returns the records of every journal in dir, file by file.
// A last line that was cut off is an error: no client is killed in the lab.
func ReadJournals(dir string) ([]Record, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		return nil, fmt.Errorf("list journals in %s: %w", dir, err)
	}
	var all []Record
	for _, name := range files {
		records, err := readJournal(name)
		if err != nil {
			return nil, err
		}
		all = append(all, records...)
	}
	return all, nil
}

func readJournal(name string) ([]Record, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	defer func() { _ = f.Close() }()
	var records []Record
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("read record %d of %s: %w", len(records)+1, name, err)
		}
		records = append(records, r)
	}
	return records, lines.Err()
}
