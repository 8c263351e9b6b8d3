package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	hubv1 "tripod.dev/tripod/proto/hub/v1"
)

// rotateTimeout bounds a rotation: every object is written again.
const rotateTimeout = time.Hour

func newHubEncryptionCommand(door *connection) *cobra.Command {
	c := &cobra.Command{
		Use:   "encryption",
		Short: "The key that encrypts what the hub keeps",
	}
	c.AddCommand(&cobra.Command{
		Use:   "rotate",
		Short: "Make a new key, write everything with it, forget the old one",
		Long: `Make a new key, give it to every member, write every object again and forget the
old key. All members must run. A rotation that was cut short is repeated: it goes
on where it was. In a hub that keeps its objects in plain text it begins to
encrypt them.

Backups keep the key of their time: keep the folder pki of their time with them.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withAdminFor(cmd, door, rotateTimeout, func(ctx context.Context, admin hubv1.AdminClient) error {
				answer, err := admin.RotateEncryption(ctx, &hubv1.RotateEncryptionRequest{})
				return changed(cmd, "rotate the encryption key", answer, err)
			})
		},
	})
	return c
}
