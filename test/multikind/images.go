package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"tripod.dev/tripod/test/multikind/image"
)

// published are the images that a real cluster needs, by their program.
var published = map[string]string{"agent": "tripod-agent", "guard": "tripod-guard"}

func images() *cobra.Command {
	folder, prefix := "bin/images", "tripod.dev"
	command := &cobra.Command{
		Use:   "images",
		Short: "Write the images of the agent and the guard as archives, for a registry or for nodes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find own program: %w", err)
			}
			for _, name := range []string{"agent", "guard"} {
				archive, err := image.Static(folder, prefix+"/"+name+":dev", filepath.Join(filepath.Dir(program), published[name]))
				if err != nil {
					return fmt.Errorf("%w; `make build` builds the programs", err)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\n", archive.Reference, archive.Path)
			}
			return nil
		},
	}
	command.Flags().StringVar(&folder, "folder", folder, "where the archives go")
	command.Flags().StringVar(&prefix, "prefix", prefix, "registry and folder of the images' names")
	return command
}
