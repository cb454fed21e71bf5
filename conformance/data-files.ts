/** The files of outside data, and what they must hold: sha256 of each, by its path in shared/data/raft/etcd-raft. */
export const DATA_FILES: Readonly<Record<string, string>> = {
  "confchange/testdata/joint_autoleave.txt":
    "bafae85d800985c4330d493ae88c821a27da8c0aafbeb68bd8ede42ebe399a27",
  "confchange/testdata/joint_idempotency.txt":
    "73fb044a6626a3eb99974de77a62919f4b37a2a6bbe84e331ff6f90d13b22784",
  "confchange/testdata/joint_learners_next.txt":
    "e768cbe86409273d311b1ac339d5e5d6dd316b6a7293e4dcea32f0f43833ccf0",
  "confchange/testdata/joint_safety.txt":
    "dfabd98d6cd98913454e34063a27beddceb3ebbe2135d5dd9203e73df51c472a",
  "confchange/testdata/simple_idempotency.txt":
    "72f4f5549e63bdd2d286735461686d2617dcc056275899944c64464a7da4136b",
  "confchange/testdata/simple_promote_demote.txt":
    "1a37b5b72a2294bb1a1dc5f48cb5c397c3e8d7b8091dd07569a8589a5a9ceecf",
  "confchange/testdata/simple_safety.txt":
    "4b5934ad4fea1c5e3d5746413ded662a7ded9d45c316baf3a69b48e43c6428c1",
  "confchange/testdata/update.txt":
    "366dab3d4643b7adb554996fc0795fd37c4eefedb2534e929c09728c64260527",
  "confchange/testdata/zero.txt":
    "90250d76bd923c41778f070e3a3bf81d4fefb4933b90c20e58b709df602fa8d6",
  "quorum/testdata/joint_commit.txt":
    "3b70b68b2da1853ac9b58bfe07f6f623fc7b20a6570640c11d51c6ec69137c89",
  "quorum/testdata/joint_vote.txt":
    "70d50c324fa0fc1ab5dc544b29d774e51269daf115c06af9165f784fbd55acf1",
  "quorum/testdata/majority_commit.txt":
    "ed758fe8d1c97a27239d0496abe8cd723fd8009d36e6c47ba1e4cb65079a9434",
  "quorum/testdata/majority_vote.txt":
    "f6c81808892de2ce21f39cafce10bc60b9df799fbaaf465c34453668a8d0543b",
  "testdata/async_storage_writes.txt":
    "1e7f15961900e18e6c4d5e35f05ae6fb1d6f408e04b34f3f742805124ad874dc",
  "testdata/async_storage_writes_append_aba_race.txt":
    "5fd1ed5d6d31d9c67e29489cbeaf77dab0c25381859075c544ecdb8b53bdac43",
  "testdata/campaign.txt": "6d028c67780bccf0b5556badc2b575390aff7ba1058572b3f62ce3faed4b322f",
  "testdata/campaign_learner_must_vote.txt":
    "82e18a052b18f7e9e82291500da55ae9c5ff121d9f580a9fd75a87484616e566",
  "testdata/checkquorum.txt": "ae0440d545351cfdec8b969eae7d36fe761a394deacb103c0219b6acf02bf003",
  "testdata/confchange_disable_validation.txt":
    "f1a511a622f76372e2a67a6c0da463802c5eb2732e6a5b0936455c9bb9749973",
  "testdata/confchange_v1_add_single.txt":
    "f81f2b995da0bcffc485205d606526077c44e9c542f78ac08711fa87403bf995",
  "testdata/confchange_v1_remove_leader.txt":
    "6b32021b069170a39073119ff2ac1e9f9adedde7c5d454802ec6135fc1a126fe",
  "testdata/confchange_v1_remove_leader_stepdown.txt":
    "a142bf8605f15fb5a789cbd63a63ccc8d4c61529d940c7952ed8e2b7702be0ec",
  "testdata/confchange_v2_add_double_auto.txt":
    "740e333b7af9fd942d365165ccaec7a315ef64c03ce23d59d0b2251d44b6099d",
  "testdata/confchange_v2_add_double_implicit.txt":
    "e3c638ddb1c79ccd96d80e1dab1a8f1bd0f7486941b77f9628d19ee071b60ec1",
  "testdata/confchange_v2_add_single_auto.txt":
    "ae896114e3bfe98c3c2e3a7665c85e490257a689bb2d55e117a83a0f521027f7",
  "testdata/confchange_v2_add_single_explicit.txt":
    "6b304b15a4ee3fd2e06f3dbf2b74230db3a0b3097aecc0590eac69715bbae030",
  "testdata/confchange_v2_replace_leader.txt":
    "32bb4fb9bc4d87c081ac6b156e3d08e7456991765f97306dfa7a07401ae39371",
  "testdata/confchange_v2_replace_leader_stepdown.txt":
    "862afc142336ca141d2881406e3cedcd6a7b0fd3a36f40371a823c95e05c79ba",
  "testdata/forget_leader.txt": "eb59f9b25f77397419bd5ec70f0c73e540100b4b68515b05cce60eadf48f7ed2",
  "testdata/forget_leader_prevote_checkquorum.txt":
    "d542257736c1158a740cf76125675180ceb78e7ce9addc6d9bff6211ada28978",
  "testdata/forget_leader_read_only_lease_based.txt":
    "ac344b338b9aa460b31da861a0255c7cea9bccd368135b88df5c460beee3df63",
  "testdata/heartbeat_resp_recovers_from_probing.txt":
    "5a455ecf4d8a45b2ab048f43c7ff004777513dbc8d655fd9db49092d624f8a2c",
  "testdata/lagging_commit.txt": "d624e20daa2413d41fdff2e2e6efb952770c4d07f1b06f26c190fd7c01ab7f3d",
  "testdata/prevote.txt": "b27019f37948c31f1d58b5c2c0e97383c763d2974cbee82b783c7ee921361fcc",
  "testdata/prevote_checkquorum.txt":
    "36d77800bf76df254c9255f8a97999c12c753850aa1901a2540bd52e962ad3dc",
  "testdata/probe_and_replicate.txt":
    "92bb36b65c99b4b3055c3e22f6f3cc6a6cda4c379412e209815ae3e609bcd7be",
  "testdata/replicate_pause.txt":
    "ac42fa5a1fefbd0a29df9d0fdb83598cf03937ea92cbb9866c8775ced512e6c2",
  "testdata/single_node.txt": "fab19716b19e8361a0726df94897e896d87b6a3637712a4f86cf58ccf752b9d2",
  "testdata/slow_follower_after_compaction.txt":
    "766d6322464f8655391e1d692d6453232ffb21ab891012debf08f70de9477c66",
  "testdata/snapshot_succeed_via_app_resp.txt":
    "2f40418238cd1f290dd65bcb4c770394f660eed19b4c6850ef92d083f5ae675f",
  "testdata/snapshot_succeed_via_app_resp_behind.txt":
    "c438b8565cedff6bdf5982b9e8460215c6709790da23c0a0b7839b0f49b831f3",
  "tla-example-trace.ndjson.gz": "aa748e6b8d18e5f9483a2e57bf6049408559f874fc565a45f249ca1e4fe5ef69",
};
