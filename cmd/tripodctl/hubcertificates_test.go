package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

func TestCertificatesThatShouldHaveBeenRenewedAreAnExitCode(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	agent := func(ends time.Duration, problem string) *hubv1.Certificate {
		return &hubv1.Certificate{Name: "tripod:agent:north", Kind: "agent", NotAfter: now.Add(ends).Unix(), Shown: now.Unix(), Problem: problem}
	}
	for name, test := range map[string]struct {
		answer *hubv1.CertificatesResponse
		want   string
		well   bool
	}{
		"all is well":        {&hubv1.CertificatesResponse{Certificates: []*hubv1.Certificate{agent(20*24*time.Hour, "")}}, "2026-03-21 12:00   20d", true},
		"one is overdue":     {&hubv1.CertificatesResponse{Certificates: []*hubv1.Certificate{agent(90*time.Minute, "was not renewed")}}, "1h30m", false},
		"one has ended":      {&hubv1.CertificatesResponse{Certificates: []*hubv1.Certificate{agent(-time.Hour, "expired")}}, " 0 ", false},
		"a member is silent": {&hubv1.CertificatesResponse{Silent: []string{"hub-b"}}, "no answer from hub-b", false},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			cmd := &cobra.Command{}
			cmd.SetOut(&out)
			err := printCertificates(cmd, test.answer, now)
			if (err == nil) != test.well || err != nil && !errors.Is(err, errNotReady) {
				t.Errorf("%v", err)
			}
			if !strings.Contains(out.String(), test.want) {
				t.Errorf("printed %q, want %q in it", out.String(), test.want)
			}
		})
	}
}
