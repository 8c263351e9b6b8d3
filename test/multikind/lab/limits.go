package lab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// inotifyInstances is how many inotify instances a user of this machine should be
// allowed: a center needs about 40, the usual limit is 128, and two labs may stand
// side by side.
const inotifyInstances = 1024

const inotifyLimit = "/proc/sys/fs/inotify/max_user_instances"

// raiseLimits makes room for the lab's programs in the machine's limits, and says so.
func (l *Lab) raiseLimits() error {
	text, err := os.ReadFile(inotifyLimit)
	if err != nil {
		return fmt.Errorf("read the limit of inotify instances: %w", err)
	}
	have, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("read %s: %w", inotifyLimit, err)
	}
	if have >= inotifyInstances {
		return nil
	}
	l.report(fmt.Sprintf("raising fs.inotify.max_user_instances from %d to %d", have, inotifyInstances))
	if err := os.WriteFile(inotifyLimit, []byte(strconv.Itoa(inotifyInstances)), 0o644); err != nil {
		return fmt.Errorf("raise the limit of inotify instances, which kubelets need: %w: set fs.inotify.max_user_instances to %d by hand", err, inotifyInstances)
	}
	return nil
}
