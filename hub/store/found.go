package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"tripod.dev/tripod/hub/api/backup"
	"tripod.dev/tripod/hub/api/statement"
	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// Founding begins a new incarnation of the hub with one member, offline: out of
// what a survivor holds when the majority is lost (Recover), or out of a backup
// (Restore); safety.md section 9. It works on a copy beside the data directory
// and puts that in place last, so it can be cut short and repeated.
type Founding struct {
	// Config of the member; its own entry in Members says where it is found.
	Config Config
	// Backup is the file to restore; empty for a recovery.
	Backup string
	// Lost are the members to give up, for a recovery: all others.
	Lost []string
	// Incarnation to begin; 0 is the next one.
	Incarnation uint64
}

// base is a copy of the state to begin from.
type base struct {
	config  Config // of the copy
	disk    *disk
	machine *machine
	// last is the last entry in the state; term is a new one.
	last, term uint64
	others     []string
	backup     backup.Facts
	// installed: what is at the copy's place may be the old data.
	installed bool
}

// Draft writes the statement that two operators must sign, and changes nothing.
func (f Founding) Draft() ([]byte, error) {
	b, err := f.open()
	if err != nil {
		return nil, err
	}
	defer b.discard()
	drafted, err := f.statement(b)
	if err != nil {
		return nil, err
	}
	return drafted.Encode()
}

// Carry begins the incarnation of the statement. It refuses a statement that is
// not about the data as it is now, and one that two operators have not signed;
// a restored hub whose backup knows fewer than two operators needs no signature.
func (f Founding) Carry(text []byte, signatures []statement.Signature) error {
	stated, err := statement.Decode(text)
	if err != nil {
		return err
	}
	f.Incarnation = stated.Incarnation
	b, err := f.open()
	if err != nil {
		return err
	}
	defer b.discard()
	drafted, err := f.statement(b)
	if err != nil {
		return err
	}
	expected, err := drafted.Encode()
	if err != nil {
		return err
	}
	if string(expected) != string(text) {
		return fmt.Errorf("the statement is not about this data: it says\n%sand the data says\n%sprint it again and have it signed again", text, expected)
	}
	if err := f.authorize(b, text, signatures); err != nil {
		return err
	}
	if err := b.begin(f.restores(), drafted, text, signatures); err != nil {
		return err
	}
	return b.install(f.Config.DataDir)
}

func (f Founding) restores() bool { return f.Backup != "" }

func (f Founding) authorize(b *base, text []byte, signatures []statement.Signature) error {
	keys := b.machine.operators()
	if len(keys) < statement.Required {
		if f.restores() {
			return nil // it comes up sealed, and a person approves
		}
		return fmt.Errorf("this hub knows the keys of %d operators, and %d must sign: restore a backup instead (tripod-hub backup, tripod-hub restore), which comes up sealed",
			len(keys), statement.Required)
	}
	_, err := statement.Verify(text, signatures, keys)
	return err
}

func (f Founding) statement(b *base) (statement.Statement, error) {
	s := statement.Statement{
		Action: statement.Recover, Hub: fmt.Sprintf("%x", b.machine.clusterID.Load()),
		Incarnation: f.Incarnation, Member: f.Config.Name, Lost: b.others,
		LastIndex: b.last, Revision: b.machine.kv.Rev(),
	}
	present := b.machine.incarnation.Load()
	if s.Incarnation == 0 {
		s.Incarnation = present + 1
	}
	if s.Incarnation <= present {
		return s, fmt.Errorf("incarnation %d is not above %d, that of the data: choose a higher one", s.Incarnation, present)
	}
	if f.restores() {
		s.Action, s.Backup = statement.Restore, b.backup.SHA256
		return s, nil
	}
	lost := slices.Clone(f.Lost)
	slices.Sort(lost)
	if f.Lost != nil && !slices.Equal(lost, b.others) {
		return s, fmt.Errorf("the other members of this hub are %v, and %v are said to be lost: name all of them; those that still run must be stopped, and join anew", b.others, lost)
	}
	return s, nil
}

// open makes the copy.
func (f Founding) open() (_ *base, err error) {
	f.Config = f.Config.WithDefaults()
	if err := f.Config.Validate(); err != nil {
		return nil, err
	}
	copied := f.Config
	copied.DataDir = f.Config.DataDir + ".founding"
	if err := os.RemoveAll(copied.DataDir); err != nil { // of an earlier attempt
		return nil, fmt.Errorf("store: remove an earlier attempt: %w", err)
	}
	if err := os.MkdirAll(copied.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	b := &base{config: copied}
	defer func() {
		if err != nil {
			b.discard()
		}
	}()
	if f.restores() {
		err = b.fromBackup(f.Backup, f.Config.DataDir)
	} else {
		err = b.fromSurvivor(f.Config)
	}
	return b, err
}

// fromBackup takes the database out of a backup.
func (b *base) fromBackup(file, dataDir string) (err error) {
	if entries, err := os.ReadDir(dataDir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s holds the data of a member: stop the member and move the folder away, a restore never overwrites", dataDir)
	}
	if b.backup, err = backup.Verify(file); err != nil {
		return err
	}
	path := filepath.Join(b.config.DataDir, "db")
	if err := backup.Extract(file, b.backup, path); err != nil {
		return err
	}
	if err := jumpAhead(path); err != nil {
		return fmt.Errorf("store: move the restored revision ahead: %w", err)
	}
	if err := b.openCopy(); err != nil {
		return err
	}
	b.last, b.term = b.backup.Index, b.backup.Term+1
	b.others = b.recorded()
	return nil
}

// fromSurvivor copies the database of a stopped member and applies all that its
// log holds, committed or not: of what was acknowledged nothing that reached this
// member may be missing.
func (b *base) fromSurvivor(config Config) (err error) {
	if _, err := os.Stat(filepath.Join(config.DataDir, "db")); err != nil {
		return fmt.Errorf("%s holds no member's data: recover on a member that survived: %w", config.DataDir, err)
	}
	newer, err := recallBehind(config.DataDir)
	if err != nil {
		return err
	}
	if newer != 0 {
		return fmt.Errorf("%w: %s belongs to a hub that has begun incarnation %d since: recover on a member of that one, or empty the folder and let this member join as new: tripodctl hub add", ErrLeftBehind, config.DataDir, newer)
	}
	old, err := openDisk(config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, old.close()) }()
	if err := copyFile(filepath.Join(config.DataDir, "db"), filepath.Join(b.config.DataDir, "db")); err != nil {
		return err
	}
	if err := b.openCopy(); err != nil {
		return err
	}
	if err := old.reconcile(b.machine); err != nil {
		return err
	}
	if b.last, err = replay(old, b.machine); err != nil {
		return err
	}
	term, err := old.log.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return fmt.Errorf("store: read the term: %w", err)
	}
	b.term = term + 1
	b.others, err = old.others(config)
	return err
}

func (b *base) openCopy() (err error) {
	if b.disk, err = openDisk(b.config); err != nil {
		return err
	}
	b.machine, err = openMachine(b.config, newMetrics())
	return err
}

// recorded are the names in the address book but this member's.
func (b *base) recorded() []string {
	names := []string{}
	for _, r := range (&book{machine: b.machine}).records() {
		if r.GetName() != b.config.Name {
			names = append(names, r.GetName())
		}
	}
	slices.Sort(names)
	return names
}

// replay applies the log from where the state is, and returns its end.
func replay(d *disk, m *machine) (last uint64, err error) {
	first, err1 := d.log.FirstIndex()
	last, err2 := d.log.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("store: read the Raft log: %w", err)
	}
	for index := max(first, m.applied.Load()+1); index <= last; index++ {
		var entry raft.Log
		if err := d.log.GetLog(index, &entry); err != nil {
			return 0, fmt.Errorf("store: read entry %d of the Raft log: %w", index, err)
		}
		if entry.Type != raft.LogCommand {
			continue
		}
		m.Apply(&entry)
		if m.halted.Load() {
			return 0, <-m.haltErr
		}
	}
	return max(last, m.applied.Load()), nil
}

// others are the members of the Raft configuration but this one.
func (d *disk) others(config Config) ([]string, error) {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(config.Name)
	c.NoSnapshotRestoreOnStart = true
	c.Logger = raftLogTo(config.Logger)
	_, transport := raft.NewInmemTransport("")
	configuration, err := raft.GetConfiguration(c, nobody{}, d.log, d.log, d.snapshots, transport)
	if err != nil {
		return nil, fmt.Errorf("store: read the members from the Raft log: %w", err)
	}
	names := []string{}
	for _, server := range configuration.Servers {
		if string(server.ID) != config.Name {
			names = append(names, string(server.ID))
		}
	}
	slices.Sort(names)
	return names, nil
}

// nobody is a state machine to which nothing is applied.
type nobody struct{}

func (nobody) Apply(*raft.Log) any                 { return nil }
func (nobody) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("no state") }
func (nobody) Restore(io.ReadCloser) error         { return nil }

// begin appends to the state what makes it a new hub's, and makes a snapshot of
// it whose configuration is this member alone.
func (b *base) begin(sealed bool, s statement.Statement, text []byte, signatures []statement.Signature) error {
	record := &raftlogv1.IncarnationRecord{Incarnation: s.Incarnation, Statement: text}
	for _, sig := range signatures {
		record.Signatures = append(record.Signatures, &raftlogv1.OperatorSignature{Operator: sig.Operator, Value: sig.Value})
	}
	self, _ := b.config.member(b.config.Name)
	ops := []Op{
		startIncarnation(&raftlogv1.StartIncarnation{Incarnation: s.Incarnation, Reason: string(text)}),
		putRecord(incarnationKeyOf(s.Incarnation), record),
		putRecord(membersPrefix+self.Name, recordOf(self, "")),
	}
	for _, name := range b.recorded() {
		ops = append(ops, dropRecord(membersPrefix+name))
	}
	if sealed {
		ops = append(ops, putRecord(sealKey, &raftlogv1.Seal{Incarnation: s.Incarnation}))
	}
	for _, op := range ops {
		data, err := encodeOp(op)
		if err != nil {
			return err
		}
		b.last++
		result, ok := b.machine.Apply(&raft.Log{Index: b.last, Term: b.term, Type: raft.LogCommand, Data: data}).(*Result)
		if !ok || result == nil {
			return fmt.Errorf("store: begin incarnation %d: the state takes no more entries", s.Incarnation)
		}
		if result.Err != nil {
			return fmt.Errorf("store: begin incarnation %d: %w", s.Incarnation, result.Err)
		}
	}
	return b.snapshot(self)
}

func (b *base) snapshot(self Member) error {
	_, transport := raft.NewInmemTransport("")
	alone := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(self.Name), Address: raft.ServerAddress(self.RaftAddress),
	}}}
	sink, err := b.disk.snapshots.Create(raft.SnapshotVersionMax, b.last, b.term, alone, b.last, transport)
	if err != nil {
		return fmt.Errorf("store: make the first snapshot: %w", err)
	}
	state, err := b.machine.Snapshot()
	if err != nil {
		return fmt.Errorf("store: make the first snapshot: %w", err)
	}
	defer state.Release()
	if err := state.Persist(sink); err != nil {
		return fmt.Errorf("store: make the first snapshot: %w", err)
	}
	if err := b.disk.log.SetUint64([]byte("CurrentTerm"), b.term); err != nil {
		return fmt.Errorf("store: write the term: %w", err)
	}
	return nil
}

// install puts the copy in the place of the data directory, whose content is
// kept beside it.
func (b *base) install(dataDir string) error {
	incarnation := b.machine.incarnation.Load()
	if err := b.close(); err != nil {
		return err
	}
	b.installed = true
	if _, err := os.Stat(dataDir); errors.Is(err, os.ErrNotExist) {
		return replaceFile(b.config.DataDir, dataDir)
	}
	kept := fmt.Sprintf("%s.before-incarnation-%d", dataDir, incarnation)
	// In one step where the file system can, so that there is no moment without a
	// data directory.
	if err := unix.Renameat2(unix.AT_FDCWD, b.config.DataDir, unix.AT_FDCWD, dataDir, unix.RENAME_EXCHANGE); err == nil {
		return replaceFile(b.config.DataDir, kept)
	}
	if err := os.Rename(dataDir, kept); err != nil {
		return fmt.Errorf("store: keep the old data: %w", err)
	}
	return replaceFile(b.config.DataDir, dataDir)
}

func (b *base) close() error {
	var errs []error
	if b.machine != nil {
		errs = append(errs, b.machine.close())
		b.machine = nil
	}
	if b.disk != nil {
		errs = append(errs, b.disk.close())
		b.disk = nil
	}
	return errors.Join(errs...)
}

// discard removes the copy, unless it was put in place.
func (b *base) discard() {
	if err := b.close(); err != nil {
		b.config.Logger.Warn("close the copy", "error", err)
	}
	if !b.installed {
		_ = os.RemoveAll(b.config.DataDir) // the next attempt removes it too
	}
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("store: copy the database: %w", err)
	}
	defer func() { _ = in.Close() }() // only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("store: copy the database: %w", err)
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("store: copy the database: %w", err)
	}
	return nil
}

// BackUp copies the database of a member that does not run to file, which must
// not exist.
func BackUp(dataDir, file string) (err error) {
	lock, err := lockDir(dataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return copyFile(filepath.Join(dataDir, "db"), file)
}
