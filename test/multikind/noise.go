package main

import (
	"time"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/test/multikind/scenario"
)

func noise(which *selection) *cobra.Command {
	duration, seed, folder := 10*time.Minute, uint64(0), "_bench"
	command := &cobra.Command{
		Use:   "noise",
		Short: "Disturb a healthy fleet with what must never move a role",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := which.realLab()
			if err != nil {
				return err
			}
			return scenario.Noise(cmd.Context(), scenario.NoiseConfig{
				Lab:      config,
				Duration: duration, Seed: seed, Folder: folder, Out: cmd.OutOrStdout(), Tell: cmd.ErrOrStderr(),
			})
		},
	}
	command.Flags().DurationVar(&duration, "duration", duration, "how long disturbances go on")
	command.Flags().Uint64Var(&seed, "seed", seed, "which disturbances; 0: by chance")
	command.Flags().StringVar(&folder, "folder", folder, "where the clients' journals go")
	return command
}
