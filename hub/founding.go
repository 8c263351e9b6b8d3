package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"tripod.dev/tripod/hub/api/backup"
	"tripod.dev/tripod/hub/api/statement"
	"tripod.dev/tripod/hub/encryption"
	hubstore "tripod.dev/tripod/hub/store"
)

// Founding begins a new incarnation of the hub on one member that does not run:
// out of its own data when the majority is lost for good, or out of a backup
// (safety.md section 9).
type Founding struct {
	Config Config
	// Backup to restore; empty recovers what the member has.
	Backup string
	// Lost are all other members, for a recovery.
	Lost []string
	// Incarnation to begin; 0 is the next one.
	Incarnation uint64
	Logger      *slog.Logger
}

// Draft returns the statement that two operators must sign, and changes nothing.
func (f Founding) Draft(ctx context.Context) (text []byte, err error) {
	err = f.alone(ctx, func(s hubstore.Founding) error {
		text, err = s.Draft()
		return err
	})
	return text, err
}

// Carry carries the statement out. The member's old data stays beside the new.
func (f Founding) Carry(ctx context.Context, text []byte, signatures []statement.Signature) error {
	return f.alone(ctx, func(s hubstore.Founding) error { return s.Carry(text, signatures) })
}

// BackUp writes the state of a member that does not run to a file.
func BackUp(ctx context.Context, config Config, file string) error {
	m := &Member{config: config.withDefaults()}
	if err := m.openDataFolder(ctx); err != nil {
		return err
	}
	defer func() { _ = m.lock.Close() }() // nothing is written to it
	if err := hubstore.BackUp(filepath.Join(m.config.DataDir, "store"), file); err != nil {
		return err
	}
	return backup.Seal(file, backup.Origin{Member: config.Name, Version: Version})
}

// alone does something to the store of a member that does not run.
func (f Founding) alone(ctx context.Context, do func(hubstore.Founding) error) error {
	f.Config = f.Config.withDefaults()
	if err := f.Config.Validate(); err != nil {
		return err
	}
	ca := filepath.Join(f.Config.DataDir, "pki", "ca.key")
	if _, err := os.Stat(ca); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is missing: copy the folder pki of any member, kept with the backups, into %s first; without the hub's CA no agent believes the new hub", ca, f.Config.DataDir)
	}
	if err := f.checkKeys(); err != nil {
		return err
	}
	m := &Member{config: f.Config}
	if err := m.openDataFolder(ctx); err != nil {
		return err
	}
	defer func() { _ = m.lock.Close() }() // nothing is written to it
	return do(hubstore.Founding{
		Config: hubstore.Config{
			Name: f.Config.Name, DataDir: filepath.Join(f.Config.DataDir, "store"),
			Members: []hubstore.Member{f.Config.self().stored()},
			TLS:     &tls.Config{}, // nothing is dialled or served
			Logger:  f.Logger,
		},
		Backup: f.Backup, Lost: f.Lost, Incarnation: f.Incarnation,
	})
}

// checkKeys says whether this member has the keys that the backup needs. With an
// operator's own configuration that is the operator's to know.
func (f Founding) checkKeys() error {
	if f.Backup == "" || f.Config.EncryptionConfigFile != "" {
		return nil
	}
	facts, err := backup.Verify(f.Backup)
	if err != nil {
		return err
	}
	if len(facts.Keys) == 0 {
		return nil
	}
	path := filepath.Join(f.Config.DataDir, "pki", "encryption.yaml")
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the encryption keys: %w", err)
	}
	ring, err := encryption.ParseRing(text)
	if len(text) > 0 && err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	for _, name := range facts.Keys {
		if !slices.Contains(ring.Names(), name) {
			return fmt.Errorf("backup %s is encrypted with key %s, which %s does not have: put the folder pki that was kept with this backup into %s; without that key nothing in the backup can be read", f.Backup, name, path, f.Config.DataDir)
		}
	}
	return nil
}
