"""What docs/benchmarks.json promises is worked out from rounds; here from made-up ones."""
import sys, unittest

sys.dont_write_bytecode = True
from figures import TARGETS, Table, flaws, met, ratios, rows  # noqa: E402


def bulk(down, up, cpu=1.0, rss=None, streams=(1,)):
    return {f"bulk_{n}_{way}": {"mb_s": speed, "cpu_s_per_gib": cpu, **({"peak_rss_mib": rss} if rss else {})}
            for n in streams for way, speed in (("down", down), ("up", up))}


class Figures(unittest.TestCase):
    def found(self, results):
        return ratios(rows({(scene, setup): rounds for scene, setup, rounds in results}))

    def test_rounds_become_median_min_and_max(self):
        found = rows({("fat", "direct"): [{"bulk_1_down": {"mb_s": n, "count": 5}} for n in (3, 1, 2)]})
        self.assertEqual(found, [{"setup": "direct", "measure": "fat.bulk_1_down.mb_s", "median": 2, "min": 1.0, "max": 3.0, "rounds": 3}])

    def test_a_ratio_is_that_of_the_worse_direction(self):
        found = self.found([("loopback", "chain3", [bulk(1000, 500)]), ("loopback", "shared-ws", [bulk(600, 200, cpu=1.5)])])
        self.assertEqual((found["bulk_ws_chain"], found["cpu_ws_chain"]), (0.4, 1.5))

    def test_a_peer_is_the_best_of_them_on_each_row(self):
        ours = bulk(300, 300, cpu=3.0, rss={"relay": 10, "agent": 20}, streams=(1, 16, 200))
        found = self.found([("loopback", "shared-wss", [ours]), ("loopback", "ssh", [bulk(100, 300)]), ("loopback", "fowl", [bulk(150, 10)]),
                            ("loopback", "penguin", [bulk(200, 400, cpu=2.0, rss={"a": 15, "b": 5}, streams=(1, 16, 200))])])
        self.assertEqual(found["e2e_peers"], 1)
        self.assertEqual(found["hop_peers_bulk"], 0.75)
        self.assertEqual(found["hop_peers_cpu"], 1, "three of our processes for two of theirs")
        self.assertEqual(found["hop_peers_memory"], 1.5)

    def test_a_line_is_compared_with_its_own_tcp(self):
        found = self.found([("fat", "direct", [bulk(60, 60)]), ("fat", "shared-wss", [bulk(54, 57)]),
                            ("fat-cubic", "direct", [bulk(50, 50)]), ("fat-cubic", "shared-wss", [bulk(50, 5)]),
                            ("slow-cubic", "shared-wss", [{"keystrokes": {"p99_us": 83_000}}])])
        self.assertEqual((found["fat200ms_line"], found["fat200ms_line_cubic"]), (0.9, 0.1))
        self.assertEqual(found["keystroke_over_rtt_ms_cubic"], 33)
        self.assertNotIn("keystroke_over_rtt_ms", found, "what was not measured has no figure")

    def test_a_target_says_which_way_it_is_met(self):
        self.assertTrue(met("bulk_ws_chain", TARGETS["bulk_ws_chain"][0]))
        self.assertFalse(met("bulk_ws_chain", 0.5))
        self.assertTrue(met("leftover", 0))
        self.assertFalse(met("leftover", 1))

    def test_what_went_wrong_is_said(self):
        round_ = {"integrity": {"same": True, "complete": True, "half_close": False}, "died": ["agent"], "echo_1": {"hang": True}}
        self.assertEqual(flaws([round_, {"error": "no answer"}]), ["a half-close loses data", "agent died", "echo_1 hangs", "no answer"])

    def test_memory_is_the_sum_of_processes(self):
        table = Table(rows({("loopback", "x"): [{"idle_rss_mib": {"relay": 1, "agent": 2}}]}))
        self.assertEqual(table.total("x", "idle_rss_mib"), 3)
        self.assertIsNone(table.total("y", "idle_rss_mib"))


if __name__ == "__main__":
    unittest.main()
