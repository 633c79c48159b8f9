"""What a server may say, and what the agent makes of what it may not."""

import asyncio
import struct

from case import check, config, scenario

MIB = 1 << 20
# RSS that a frame may cost although it is refused.
EXTRA_MIB = 16


async def refused_with(session, code, what):
    got = await session.closed(timeout=15)
    check(got == code, f"{what}: close code {got}, not {code}")


@scenario
async def a_config_update_is_applied_and_an_older_one_refused(case):
    plane, agent, session = await case.pair(greet={"heartbeat": 1})
    ack = await session.ask("ConfigUpdate", {"config": config(5, "/nowhere.db")}, "five")
    check(ack["accepted"], f"{ack}")
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 5, timeout=3)
    ack = await session.ask("ConfigUpdate", {"config": config(4)}, "four")
    check(not ack["accepted"] and "5" in ack["reason"] and "4" in ack["reason"], f"{ack}")
    ack = await session.ask("ConfigUpdate", {"config": config(5, "/nowhere.db")}, "five-again")
    check(ack["accepted"], f"an equal version is idempotent: {ack}")
    await asyncio.sleep(1.2)
    check(session.of_kind("Heartbeat")[-1]["config_version"] == 5, "the older config was applied")
    ack = await session.ask("ConfigUpdate", {"config": config(6)}, "six")
    check(ack["accepted"], f"{ack}")
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 6, timeout=3)


@scenario
async def an_older_config_in_register_ack_is_ignored(case):
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": config(9)})
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 9)
    plane.greet = {"heartbeat": 1, "config": config(8)}
    session.cut()
    session = await plane.session()
    check(session.register["last_known_config_version"] == 9, f"{session.register}")
    await session.wait_for("Heartbeat")
    await asyncio.sleep(1.3)
    check({beat["config_version"] for beat in session.of_kind("Heartbeat")} == {9}, "version 8 was applied")


@scenario
async def a_register_ack_of_3_mb_is_taken_and_kept(case):
    big = config(3)
    big["targets"] = [{"id": f"target-{number}", "type": 6, "display_name": "x" * 900} for number in range(3300)]
    plane, agent, session = await case.pair(greet={"heartbeat": 1, "config": big})
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 3, timeout=5)
    await agent.kill()
    plane.greet = {"heartbeat": 1}
    await agent.start()
    session = await plane.session()
    check(session.register["last_known_config_version"] == 3, f"{session.register}")


@scenario
async def a_message_of_5_mb_is_refused_with_1009(case):
    plane, agent, session = await case.pair(greet={"heartbeat": 1})
    before = agent.memory("VmHWM")
    await session.send("Ping", {})
    padding = config(2)
    padding["targets"] = [{"id": "x" * 1000} for _ in range(5000)]
    await session.send("ConfigUpdate", {"config": padding}, "too-much")
    await refused_with(session, 1009, "5 MB")
    extra = (agent.memory("VmHWM") - before) / MIB
    check(extra < EXTRA_MIB, f"it cost {extra:.1f} MiB")
    session = await plane.session()
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 0)


@scenario
async def a_frame_of_200_mib_is_refused_by_its_header(case):
    plane, agent, session = await case.pair(greet={"heartbeat": 1})
    await session.wait_for("Heartbeat")
    before = agent.memory("VmHWM")
    session.write_raw(struct.pack(">BBQ", 0x82, 127, 200 * MIB))
    sent = await session.stream_raw(200 * MIB)
    await refused_with(session, 1009, "200 MiB")
    extra = (agent.memory("VmHWM") - before) / MIB
    check(extra < EXTRA_MIB, f"it cost {extra:.1f} MiB after {sent / MIB:.0f} MiB were sent")
    await plane.session()


@scenario
async def a_length_over_63_bits_is_refused(case):
    plane, agent, session = await case.pair()
    session.write_raw(struct.pack(">BBQ", 0x82, 127, 1 << 63 | 5) + bytes(1000))
    check(await session.closed() in (1002, 1009), f"close code {session.close_code}")
    check(agent.running(), "the agent died")
    await plane.session()


@scenario
async def fragments_without_end_are_refused_with_1009(case):
    plane, agent, session = await case.pair()
    await session.wait_for("Heartbeat")
    before = agent.memory("VmHWM")
    piece = bytes(60_000)
    session.write_raw(struct.pack(">BBH", 0x02, 126, len(piece)) + piece)
    for _ in range(400):
        if session.ended.is_set() or session.socket.transport.is_closing():
            break
        session.write_raw(struct.pack(">BBH", 0x00, 126, len(piece)) + piece)
        await asyncio.sleep(0.002)
    await refused_with(session, 1009, "endless fragments")
    extra = (agent.memory("VmHWM") - before) / MIB
    check(extra < EXTRA_MIB, f"it cost {extra:.1f} MiB")
    await plane.session()


@scenario
async def a_message_in_fragments_with_a_ping_between_is_whole(case):
    _, _, session = await case.pair(greet={"heartbeat": 1})

    async def pieces():
        from codec import Envelope
        data = Envelope("ConfigUpdate", {"config": config(11)}, 99, 1, "in-pieces").encode()
        for at in range(0, len(data), 7):
            yield data[at:at + 7]
            await (await session.socket.ping(b"between"))

    await session.socket.send(pieces())
    ack = await session.wait_for("Ack", lambda ack: ack["correlation_id"] == "in-pieces")
    check(ack["accepted"], f"{ack}")
    await session.wait_for("Heartbeat", lambda beat: beat["config_version"] == 11)


@scenario
async def a_binary_frame_that_does_not_decode_ends_the_connection_with_1007(case):
    plane, agent, session = await case.pair()
    for garbage in (b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0f", b"\x07" * 40):
        await session.socket.send(garbage)
        await refused_with(session, 1007, f"garbage {garbage[:8].hex()}")
        session = await plane.session()
    check(agent.running(), "the agent died")


@scenario
async def a_first_payload_other_than_register_ack_is_refused_with_1008(case):
    plane = await case.plane()
    plane.greet = None
    await case.agent(plane).start()
    session = await plane.session()
    await asyncio.wait_for(session.registered.wait(), 5)
    await session.send("Ping", {}, "too-early")
    await refused_with(session, 1008, "a Ping before RegisterAck")
    await plane.attempt(2, timeout=4)
    check(not session.of_kind("Ack"), "the Ping was answered")


@scenario
async def text_frames_are_ignored(case):
    _, agent, session = await case.pair(greet={"heartbeat": 1})
    await session.socket.send("hello agent, this is no protobuf")
    ack = await session.ask("Ping", {}, "after-text", timeout=3)
    check(ack["accepted"], f"{ack}")
    check(agent.logged("text"), f"the text frame is not in the log: {agent.tail()}")


@scenario
async def an_envelope_from_the_future_disturbs_nobody(case):
    """Unknown fields, an unknown payload, an empty envelope: additions must be possible."""
    _, _, session = await case.pair(greet={"heartbeat": 1})
    await session.socket.send(b"\x08\x63\xfa\x06\x03new")            # seq, and field 111
    await session.socket.send(b"")
    ack = await session.ask("Ping", {}, "after-the-future", timeout=3)
    check(ack["accepted"], f"{ack}")


@scenario
async def a_masked_frame_from_the_server_breaks_the_protocol(case):
    plane, agent, session = await case.pair()
    session.write_raw(b"\x82\x85\x01\x02\x03\x04hello")
    check(await session.closed() == 1002, f"close code {session.close_code}")
    check(agent.running(), "the agent died")
    await plane.session()


@scenario
async def reserved_bits_and_opcodes_break_the_protocol(case):
    plane, agent, session = await case.pair()
    for frame in (b"\xc2\x01x", b"\x83\x01x", b"\x09\x00", b"\x89\x7e\x00\x7e" + bytes(126)):
        session.write_raw(frame)
        check(await session.closed() == 1002, f"{frame[:4].hex()}: close code {session.close_code}")
        session = await plane.session(timeout=20)
    check(agent.running(), "the agent died")


@scenario
async def unknown_things_are_refused_with_a_reason(case):
    _, _, session = await case.pair(greet={"heartbeat": 1, "config": config(1, "/nowhere.db")})
    ack = await session.ask("CancelJob", {"job_id": "job-1"}, "cancel")
    check(not ack["accepted"] and ack["reason"], f"{ack}")
    ack = await session.ask("CancelJob", {"job_id": "no-such-job"}, "cancel-2")
    check(not ack["accepted"] and "no-such-job" in ack["reason"], f"{ack}")
    ack = await session.ask("RunHealthCheck", {"check_id": "no-such-check"}, "check")
    check(not ack["accepted"] and ack["reason"], f"{ack}")
    ack = await session.ask("SelfUpdate", {"target_version": "9.9.9"}, "update")
    check(not ack["accepted"] and ack["reason"], f"{ack}")


@scenario
async def a_thousand_commands_at_once_are_all_answered_in_order(case):
    _, agent, session = await case.pair(greet={"heartbeat": 1})
    for number in range(1000):
        await session.send("CancelJob", {"job_id": f"j{number}"}, f"c-{number}")
    await session.wait_for("Ack", lambda ack: ack["correlation_id"] == "c-999", timeout=30)
    answered = [ack["correlation_id"] for ack in session.of_kind("Ack")]
    check(answered == [f"c-{number}" for number in range(1000)], f"{len(answered)} answers, not in order")
    await session.wait_for("Heartbeat", lambda beat: beat["metrics"]["queue_depth"] == 0, timeout=10,
                           after=len(session.messages))
