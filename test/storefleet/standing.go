package storefleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	raftlogv1 "tripod.dev/tripod/proto/raftlog/v1"
)

// Standing asks a member of ours what it tells the other members.
func (m *Member) Standing(ctx context.Context) (*raftlogv1.StandingResponse, error) {
	pair := filepath.Join(m.fleet.folder, m.name)
	certificate, err := tls.LoadX509KeyPair(pair+".crt", pair+".key")
	if err != nil {
		return nil, fmt.Errorf("read the certificate of %s: %w", m.name, err)
	}
	conn, err := grpc.NewClient(strings.TrimPrefix(m.URL(), "https://"), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate}, RootCAs: m.fleet.tls.RootCAs, MinVersion: tls.VersionTLS13,
	})))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", m.name, err)
	}
	defer func() { _ = conn.Close() }()
	standing, err := raftlogv1.NewMemberServiceClient(conn).Standing(ctx, &raftlogv1.StandingRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("ask %s how it stands: %w", m.name, err)
	}
	return standing, nil
}

// AwaitStanding waits until what the member tells is as wanted.
func (m *Member) AwaitStanding(ctx context.Context, what string, as func(*raftlogv1.StandingResponse) bool) error {
	err := poll(ctx, func(ctx context.Context) error {
		if m.Ended() {
			return errors.New("it has ended")
		}
		standing, err := m.Standing(ctx)
		if err != nil {
			return err
		}
		if !as(standing) {
			return fmt.Errorf("it tells %v", standing)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %s: %w", m.name, what, err)
	}
	return nil
}

// Log is what the member has said.
func (m *Member) Log() (string, error) {
	text, err := os.ReadFile(filepath.Join(m.Folder, "log"))
	if err != nil {
		return "", fmt.Errorf("read the log of %s: %w", m.name, err)
	}
	return string(text), nil
}
