package apiserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"

	"tripod.dev/tripod/hub/identity"
)

// testRenewal: the certificate of the member is replaced on disk while it serves, as
// identity does when a third of its life is left. New connections see the new one;
// one that is open goes on.
func testRenewal(t *testing.T, h *hub) {
	config, err := rest.TLSConfigFor(h.admin())
	if err != nil {
		t.Fatal(err)
	}
	dials := &atomic.Int64{}
	open := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}}
	defer open.CloseIdleConnections()
	ask := func() {
		t.Helper()
		answer, err := open.Get("https://" + h.server.Address() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
	}
	ask()
	// Opening an identity issues the member's certificate afresh.
	renewed, err := identity.Open(t.Context(), identity.Config{
		Name: "a", DataDir: h.dataDir, Advertise: "127.0.0.1", Bootstrap: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := renewed.Certificate().Leaf
	if h.identity.Certificate().Leaf.Equal(want) {
		t.Fatal("the certificate was not renewed, so this test shows nothing")
	}
	eventually(t, "new connections see the new certificate", func(ctx context.Context) string {
		conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", h.server.Address())
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		if shown := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]; !shown.Equal(want) {
			return fmt.Sprintf("the certificate shown has serial number %x, want %x", shown.SerialNumber, want.SerialNumber)
		}
		return ""
	})
	ask()
	if dials.Load() != 1 {
		t.Errorf("the open connection did not go on: %d were dialled", dials.Load())
	}
}
